"""stub"""

SMOOTH = set()


def shape(inside, root, number, constants, z):
    return None
