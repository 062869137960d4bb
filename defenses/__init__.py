"""The built-in defences: one file each, opening with its paper. Loaded only when asked for."""

DECLARED = {
    "none": "none:Undefended",
    "pgd-at": "pgd_at:PGDAT",
    "trades": "trades:TRADES",
    "pssr": "pssr:PSSR",
}
