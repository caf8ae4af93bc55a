"""`sslrun drill`: a run is preempted, killed and damaged on purpose, and must end as if nothing had happened.

    catalog.py      what a fault is, and which there are
    kills.py  signals.py  preemption.py  nodes.py  disk.py  corruption.py  races.py  hangs.py
                    the faults, a family a file: each injects the real thing and says what must come of it
    subject.py      one run seen from outside: its files, its processes, the queue
    places.py       this machine, or a cluster: how a run is started, signalled and cleaned up there
    simulated.py    what no program can bring about for real: a slow file system, a wrong clock
    engine.py       faults one after the other in few runs, each run beside one that nobody disturbed
    report.py       the table

The levers are those that anybody has: signals, files, limits of processes, Slurm's commands, `sslrun` itself. Nothing
in the product knows that it is being drilled.
"""
