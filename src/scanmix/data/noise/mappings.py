"""Class maps of asymmetric (class-dependent) label noise: which class is mistaken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# truck -> automobile, bird -> airplane, deer -> horse, cat -> dog, dog -> cat: the five maps of DivideMix's
# published code (the ScanMix paper's section 3.1 prints four of them, without dog -> cat).
CIFAR10_ASYMMETRIC: Mapping[int, int] = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}

# Not from a paper: five pairs of garments that look alike, chosen as those of CIFAR-10, each target used once:
# T-shirt -> shirt, pullover -> coat, coat -> pullover, sandal -> sneaker, sneaker -> ankle boot.
FASHION_MNIST_ASYMMETRIC: Mapping[int, int] = {0: 6, 2: 4, 4: 2, 5: 7, 7: 9}

# 7 -> 1, 2 -> 7, 5 <-> 6, 3 -> 8: Patrini et al. 2017 (arXiv 1609.03683), section 5, for MNIST.
DIGITS_ASYMMETRIC: Mapping[int, int] = {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}

# CIFAR-100's twenty superclasses (Krizhevsky 2009). The fine label of a name is its alphabetical position.
CIFAR100_SUPERCLASSES: Mapping[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
CIFAR100_CLASSES: tuple[str, ...] = tuple(sorted(sum(CIFAR100_SUPERCLASSES.values(), ())))
CIFAR100_COARSE: tuple[int, ...] = tuple(
    next(i for i, members in enumerate(CIFAR100_SUPERCLASSES.values()) if name in members) for name in CIFAR100_CLASSES
)


def within_superclasses(coarse: Sequence[int]) -> dict[int, int]:
    """Map every class to the next class of its superclass, the last to the first: CIFAR-100's asymmetric noise.

    `coarse` has the superclass of each of the C fine classes.
    """
    mapping: dict[int, int] = {}
    for superclass in sorted(set(coarse)):
        members = [fine for fine, group in enumerate(coarse) if group == superclass]
        mapping.update(zip(members, members[1:] + members[:1], strict=True))
    return mapping


ASYMMETRIC: Mapping[str, Mapping[int, int]] = {
    "cifar10": CIFAR10_ASYMMETRIC,
    "cifar100": within_superclasses(CIFAR100_COARSE),
    "digits": DIGITS_ASYMMETRIC,
    "fashion-mnist": FASHION_MNIST_ASYMMETRIC,
}
