from fleet_controller.plan.steps import PoolView, Step, blind, mass_loss, out_of_sight, steps, stops_left

__all__ = ["PoolView", "Step", "blind", "mass_loss", "out_of_sight", "steps", "stops_left"]
