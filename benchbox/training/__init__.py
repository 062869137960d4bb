"""How weights come about: the loop, its precision, and the artifacts it leaves."""
