"""Figures: numbers and images in, drawings out. matplotlib lives here and nowhere else.

survival     what the claim of a defence survives, from results alone
curve        accuracy against the radius or a setting, from results alone
pictures, shares, scatter     what a trained model does, from arrays that `specimens` has it make
style        one look, and files that are the same byte for byte

`specimens` alone knows torch; it is loaded when a figure needs a model.
"""
