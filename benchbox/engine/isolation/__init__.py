"""A defence in a process of its own, for plug-ins of strangers: it sees no frame and no object of the engine.

`apart` starts such a process, `stranger` stands for the defence on this side, `cell` is what runs on the other,
and `wire` is all that passes between them.
"""
