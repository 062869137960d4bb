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
    "torchattacks": "torchattacks_bridge:Torchattacks",  # a family: torchattacks:PGD, torchattacks:DIFGSM, …
}
