"""The whole system on one simulated event loop: a seed decides what the network, the disk and the clocks do.

Client, queue and worker are the real ones, and so is the encoding between them. The same seed gives the same run, so a
run that went wrong can be looked at again and again: ``python -m aiqueue.testing.simulation --seed 123 --trace``.
See ``docs/testing.md``.
"""
