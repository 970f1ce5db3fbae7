"""What crosses between the front and a worker: messages over a socket (`frame.py`), tensors through shared memory
(`area.py`). Both sides import this room, and neither imports the other.

    front -> worker: ("load", key, ModelConfig as dict, beside) ("unload", key)
                     ("run", batch, key, {input: Placed} or [payload], sizes or None: one each, wants tokens or
                      None: nobody does, lane)
                     ("step", step, key, [(sequence, request)] that begin, sequences to step, sequences to forget)
    worker -> front: ("hello", Hello) ("loaded", key, Traits) ("failed", key, why) ("unloaded", key)
                     ("memory", resident bytes, bytes reserved on the GPU or None)
                     ("ran", batch, [outcome], {output: Placed} or None, smallest batch that ran out of memory or None,
                      seconds)
                     ("stepped", step, {sequence: outcome as in model/generator.py}, as above of sequences)

key: the front's name for one version of a model, loaded once. beside: while batches are computed (model/library.py).
outcome: ("ok", rows, finite, tokens) or ("refused", code, message); rows is None where they lie in the shared area,
whose one output without a name is called "". lane: of the area, for inputs and outputs. seconds: that the model took.
A worker takes messages in order. What it has to say about a batch may wait for the next one, if that is there already.
"""
