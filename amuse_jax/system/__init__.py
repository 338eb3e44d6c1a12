"""Everything that depends on the operating system or on several machines.

`files`, `formats` and `manifest` handle what is written to disk. `processes`, `sharded` and `beam`
spread work over worker processes and machines. `hosts` and `preemption` coordinate several training
processes, and `memory` sets up the allocator.
"""
