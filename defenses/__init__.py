"""The built-in defences: one file each, opening with its paper. Loaded only when asked for."""

DECLARED = {
    "none": "none:Undefended",
    "pgd-at": "pgd_at:PGDAT",
    "trades": "trades:TRADES",
    "pssr": "pssr:PSSR",
    "atop": "atop:AToP",
    "carso": "carso:CARSO",
    "pssr:ps": "pssr:PixelSurgery",
    "pssr:cae": "pssr:Regeneration",
    "pssr:ps+cae": "pssr:WithoutARD",
    "pssr:oracle": "pssr_oracle:Oracle",
    "pssr:oracle+cae": "pssr_oracle:RegeneratingOracle",
    "grad-reg": "grad_reg:GradReg",
    "arn": "arn:ARN",
    "pcl": "pcl:PCL",
    "uat": "uat:UAT",
    "rst": "uat:RST",
    "robustbench": "robustbench_bridge:RobustBench",
    "rice": "rice:Rice",  # "ro" in the tables of the PSSR paper
    "bagt-pgd-at": "bag_of_tricks:BagPGDAT",
    "bagt-trades": "bag_of_tricks:BagTRADES",
    "ibp": "ibp:IBP",
    "jpeg": "jpeg:JPEG",
    "diffpure": "diffpure:DiffPure",
    "diffpure:ode": "diffpure:DiffPureODE",
    "gdmp": "gdmp:GDMP",
    "randomized-resize-pad": "resize_pad:ResizePad",
}
#: The classifier without a defence: what a purifier builds on unless it says otherwise.
UNDEFENDED = "none"
