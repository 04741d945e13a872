"""Manual choices for the images of the packages: which to leave out, and some names."""

# Stamps that are drawings, show several objects, or are copies of another stamp; patterns of folder/name.
EXCLUDED_STAMPS = """
symbols/* */cartoon/* *_mirror *_flip animals/insects/bee animals/mammals/hedgehog clothes/* food/pizza
medical/tooth military/final-roll-call naturalforces/* people/body_parts/* seasonal/christmas/Santa
seasonal/christmas/candy_cane seasonal/christmas/star seasonal/christmas/tree seasonal/easter/*
seasonal/halloween/jackolantern* seasonal/hanukkah/* seasonal/newyears/* space/planets/0_sun town/flags/*
town/monuments/inukshuk-outline vehicles/emergency/sedan_police
"""


# Wallpapers that are not used as backgrounds; patterns of folder/name. First those that are not photographs,
# then those of flowers and animals (objects have the same names), then those of another object ("the red
# thing" could refer to it).
EXCLUDED_BACKGROUNDS = """
abstract/* desktop/* */umang_by_* */Fossa_by_* */Painting-Colors_by_* images/Autumn images/Flow
images/Honeywave images/PastelHills images/SafeLanding images/Shell
*/Dragonfly_by_* */Kleiber_by_* */free_by_* */seeding_by_* nature/FreshFlower nature/Garden nature/LadyBird
nature/TwoWings nature/YellowFlower
*/Picture_0B_by_* */Picture_1A_by_* */Wine_by_* */friends_by_* */greentock_by_* images/ColorfulCups
images/EveningGlow
"""


# File name=noun phrase, if neither the description nor the file name gives a good one.
_NAMES = """
bluegroper=blue groper,lionfish=lionfish,gnu-baby=baby gnu,gnu-baby-stand=baby gnu,sheep_lamb=lamb,hen=hen
edward_bear=teddy bear,mountaingoat=mountain goat,avocado=avocado,cherimoya=cherimoya,grannysmith=rag doll
bradley=tank,infantry-stryker=armoured vehicle,f22_raptor=fighter jet,adeenia=desert rose,xanthia=moth
anemone_red=anemone,anthoorium=anthurium,appooppanthady=milkweed,bolsom=balsam,chemparathi=hibiscus
flower10=hibiscus,flower4=purple flowers,flower7=orange flowers,chuvanna_plastic_poo=plastic flower
eggplant=eggplant,lavender=lavender,cep-2=cep,birch=birch,rambutan=rambutan,German_Christmas_toy=wooden toy
grave-c=stone cross,moon_3qt=moon,apollo_lander=lunar lander,spacewalk=astronaut,voyager2=space probe
stop=stop sign,yield=yield sign,uk_post_box=post box,indycar=race car,chineseJunk=sailing ship,7spoke256=wheel
"""
_PAIRS = _NAMES.strip().replace("\n", ",").split(",")
NOUN_PHRASES = {file: name for file, _, name in (pair.partition("=") for pair in _PAIRS)}
