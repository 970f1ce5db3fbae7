"""The process that owns a device. torch lives here and in model/, and nowhere else."""
