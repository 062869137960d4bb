"""The built-in attacks: one file each, opening with its paper. Loaded only when asked for."""

DECLARED = {
    "null": "null:Null",
    "noise": "noise:Noise",
    "fgsm": "fgsm:FGSM",
    "bim": "bim:BIM",
    "mim": "mim:MIM",
    "pgd": "pgd:PGD",
    "cw": "cw:CW",
    "aa": "aa:AA",
    "square": "square:Square",
    "rays": "rays:RayS",
    "hopskipjump": "hopskipjump:HopSkipJump",
    "pointwise": "pointwise:Pointwise",
    "apgd-ce": "apgd:APGDCE",
    "apgd-dlr": "apgd:APGDDLR",
    "apgd-t": "apgd:APGDT",
    "fab-t": "fab:FABT",
    "cw-l2": "cw_l2:CWL2",
    "fmn": "fmn:FMN",
    "pgd-t": "targeted:PGDT",
    "mt": "targeted:MultiTargeted",
    "pgd-200": "pgd:PGD200",
    "diffattack": "diffattack:DiffAttack",
    "pgd-keep": "pgd_keep:PGDKeep",
    "low-frequency": "low_frequency:LowFrequency",
    "torchattacks": "torchattacks_bridge:Torchattacks",  # a family: torchattacks:PGD, torchattacks:DIFGSM, …
}
