"""Figures: numbers and images in, drawings out. matplotlib lives here and nowhere else.

survival     what the claim of a defence survives, from results alone
curve        accuracy against the radius or a setting, from results alone
pictures, shares, scatter     what a trained model does, from arrays
models       which arrays: the figures of the PSSR paper
specimens    makes them; it alone knows torch, and is loaded when a figure needs a model
style        one look, and files that are the same byte for byte
"""
