"""What a plug-in sees: the interfaces of a defence and of an attack, and the door they come in by."""
