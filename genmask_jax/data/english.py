"""Common English words that stay true in a mirror image.

`mirror.py` mirrors only texts of these words, of left and right, and of the user's
`config.data.augment.flip_words`. Excluded on purpose: words for things that are asymmetric or read (clock
times, compass points, letters and numbers, port and starboard, organs, driver's side), left and right in
other languages ("links", "gauche"), and names.
"""

_NOUNS = """
person people man men woman women boy girl child children kid baby toddler adult guy gal lady gentleman dude
fellow human player batter catcher umpire pitcher referee goalie goalkeeper skier surfer skater skateboarder
snowboarder cyclist bicyclist biker rider jockey pedestrian worker chef cook waiter waitress server nurse
doctor patient soldier police policeman officer fireman firefighter student teacher bride groom couple family
crowd audience spectator photographer farmer cowboy clown king queen astronaut mother father mom dad brother
sister son daughter friend twin head face hair beard mustache moustache eye eyebrow ear nose mouth lip tooth
teeth tongue chin cheek forehead neck shoulder arm elbow wrist hand finger thumb chest belly hip leg knee
thigh calf ankle foot feet toe skin body torso tail paw hoof hooves horn antler mane trunk tusk beak feather
wing fin claw snout muzzle whisker fur animal dog puppy cat kitten horse pony foal donkey mule cow bull ox
oxen sheep lamb goat pig piglet bird chicken hen rooster duck duckling goose geese swan turkey pigeon crow
parrot owl eagle hawk seagull gull penguin ostrich flamingo peacock heron pelican stork sparrow robin elephant
giraffe zebra lion tiger bear panda polar monkey gorilla ape chimpanzee kangaroo koala deer elk moose antelope
gazelle buffalo bison camel llama alpaca rhino rhinoceros hippo hippopotamus wolf wolves fox rabbit bunny hare
squirrel chipmunk mouse mice rat hamster hedgehog beaver otter raccoon skunk badger bat frog toad turtle
tortoise lizard snake crocodile alligator dinosaur fish shark whale dolphin seal octopus crab lobster shrimp
starfish jellyfish insect bug bee wasp ant fly mosquito butterfly moth dragonfly beetle ladybug ladybird
spider snail worm caterpillar grasshopper cricket cattle herd flock pack pair group car cars vehicle truck
lorry van bus minibus coach taxi cab trailer tractor bulldozer excavator crane forklift ambulance jeep suv
sedan convertible limousine wagon cart carriage motorcycle motorbike moped scooter bicycle bike tricycle
unicycle train tram trolley streetcar subway locomotive railway rail track airplane aeroplane plane aircraft
jet helicopter glider drone balloon blimp rocket boat ship sailboat yacht canoe kayak raft ferry barge
submarine wheel tire tyre windshield windscreen bumper headlight taillight hood bonnet roof seat saddle pedal
handlebar mirror engine propeller cockpit cabin mast sail paddle oar deck anchor ramp road street lane highway
avenue alley path pathway sidewalk pavement curb kerb crosswalk crossing intersection parking lot driveway
bridge tunnel overpass roundabout median guardrail barrier cone pole post pylon lamppost streetlight light
lamp traffic signal stoplight sign stop signpost billboard hydrant meter mailbox bench bin dustbin trash can
garbage dumpster fence gate wall railing terrain caravan gravel asphalt concrete crack pothole building house
home hut cottage shed barn garage tower skyscraper castle palace church temple mosque cathedral school
hospital hotel shop store market mall restaurant cafe bar station airport stadium arena theater theatre museum
library office factory warehouse farm mill lighthouse windmill silo greenhouse tent awning canopy gazebo
pavilion balcony porch patio terrace veranda courtyard entrance exit door doorway window shutter blind curtain
chimney column pillar arch dome statue sculpture monument fountain gravestone tombstone stairs staircase step
stairway escalator elevator lift floor ceiling room kitchen bathroom bedroom hallway corridor attic basement
brick tile table desk counter countertop island stool chair armchair sofa couch loveseat ottoman bed crib
cradle mattress pillow cushion blanket quilt sheet duvet comforter rug carpet mat cabinet cupboard closet
wardrobe dresser drawer nightstand bookcase bookshelf shelf shelves rack hanger hook basket hamper box crate
carton container bucket barrel tub bathtub bath shower sink basin faucet tap toilet urinal towel soap bottle
sponge toothbrush toothpaste razor comb brush hairbrush hairdryer dryer vase pot planter pottery jar jug
kettle teapot candle candlestick chandelier lampshade lantern bulb fan heater radiator fireplace stove oven
microwave toaster blender mixer refrigerator fridge freezer dishwasher washer washing machine vacuum cleaner
iron ironing broom mop painting picture photo photograph image frame poster portrait drawing sketch mural
plate dish bowl cup mug glass wineglass saucer tray platter napkin placemat tablecloth fork knife knives spoon
spatula ladle whisk chopstick straw pan skillet cutting board thermos flask lid cork food meal breakfast lunch
dinner snack dessert bread loaf loaves bun roll toast bagel croissant doughnut donut muffin cupcake cake pie
tart cookie biscuit cracker pancake waffle cereal oatmeal pasta spaghetti noodle rice soup stew salad sandwich
burger hamburger cheeseburger hotdog pizza taco burrito wrap sushi fries chip crisp egg omelet bacon ham
sausage meat steak beef pork rib salmon tuna cheese butter cream yogurt milk juice water coffee tea beer wine
soda sauce ketchup mustard mayonnaise syrup honey jam salt pepper sugar flour spice herb chocolate candy ice
popcorn nut almond peanut walnut fruit apple banana orange lemon lime grape grapefruit strawberry strawberries
raspberry blueberry cherry peach pear plum apricot mango pineapple melon watermelon kiwi coconut avocado fig
date olive tomato tomatoes potato potatoes carrot onion garlic cucumber lettuce cabbage broccoli cauliflower
spinach celery pea bean corn pumpkin squash zucchini eggplant mushroom radish beet turnip asparagus artichoke
slice piece topping crust clothes clothing outfit costume suit uniform shirt tshirt tee blouse sweater jumper
sweatshirt hoodie cardigan vest jacket coat raincoat parka robe dress gown skirt kilt trousers pants jeans
shorts leggings tights sock stocking shoe boot sneaker trainer sandal slipper heel hat cap beanie helmet
turban crown tiara scarf tie bowtie necktie belt buckle glove mitten mask goggles glasses eyeglasses
sunglasses spectacles watch bracelet necklace earring ring jewelry apron bib diaper swimsuit bikini wetsuit
pajamas underwear bra sleeve collar pocket button zipper hem umbrella parasol purse handbag bag backpack
rucksack suitcase luggage briefcase wallet duffel pouch sack tote cane crutch wheelchair stroller pram
pushchair ball baseball basketball football soccer volleyball tennis golf rugby hockey puck racket racquet
club stick net goal hoop bow mitt frisbee kite skateboard snowboard surfboard ski skis sled sleigh skate sport
game match court field pitch rink pool slope trampoline dumbbell barbell treadmill puzzle dice chess toy doll
teddy robot lego block swing slide seesaw sandbox playground computer laptop monitor screen keyboard mousepad
printer scanner speaker headphone headset earphone microphone camera tripod lens phone telephone cellphone
smartphone tablet television tv remote controller console radio stereo router cable cord wire plug outlet
socket switch battery charger projector book notebook magazine newspaper paper page envelope folder binder pen
pencil crayon marker eraser ruler scissors tape stapler clip clock card chalkboard blackboard whiteboard easel
tool hammer screwdriver wrench pliers saw drill axe shovel spade rake hoe hose ladder rope chain bolt screw
nail toolbox wheelbarrow lawnmower mower pipe valve gear guitar piano violin cello drum trumpet saxophone
flute harp accordion banjo instrument sky cloud sun moon star rainbow rain snow fog mist storm lightning smoke
steam fire flame ash dust mountain hill cliff rock stone boulder pebble cave valley canyon desert dune sand
soil dirt mud ground earth land grass lawn meadow pasture prairie hay forest wood woods jungle tree bush shrub
hedge plant weed vegetation flower rose tulip sunflower daisy lily orchid petal leaf leaves branch twig log
stump root bark vine moss fern palm pine oak birch maple willow cactus crop wheat barley garden orchard
vineyard park lake pond river stream creek waterfall sea ocean wave beach shore bay reef coral dock pier wharf
harbor harbour marina buoy horizon landscape scenery nature background foreground shadow reflection
pottedplant diningtable tvmonitor drier lesion polyp disease tumor tumour nodule cyst wound ulcer mole spot
nucleus nuclei cell tissue gland vessel polyps fracture implant scar bone rust scratch dent stain hole defect
corrosion weld seam leak spill seedling panel turbine roofing debris litter plastic cardboard metal rubber
fabric leather wool cotton silk lace velvet circle square triangle rectangle ellipse oval diamond pentagon
hexagon octagon cross crescent dot line stripe cube sphere cylinder pyramid disc disk shape blob polygon
object thing item stuff part one ones scene corner edge side end half border margin center centre middle rim
tip surface area region zone section pattern bunch stack pile row bouquet cluster collection bundle heap
string
"""

_ADJECTIVES = """
red green blue yellow orange purple violet pink brown black white grey gray beige tan cream gold golden silver
teal turquoise cyan magenta maroon navy crimson scarlet olive lime khaki ivory bronze copper brunette blond
blonde ginger colored coloured colorful colourful dark light pale bright vivid dull shiny glossy matte
transparent clear big bigger biggest large larger largest small smaller smallest little tiny huge giant tall
taller tallest short shorter shortest long longer longest wide wider widest narrow thick thicker thin thinner
thinnest fat skinny slim chubby heavy deep shallow high higher highest low lower lowest round circular
rectangular triangular oval flat curved bent pointed sharp straight tilted vertical horizontal diagonal
parallel old older oldest young younger youngest new ancient modern antique vintage wooden metallic plastic
glassy woolen knitted woven leather furry fluffy hairy bald bearded smooth rough soft hard striped spotted
dotted checkered chequered plaid checked patterned floral plain spotty wet dry dirty clean dusty muddy snowy
sandy rocky grassy rusty broken cracked torn worn parked moving stationary dining solar electric military
medical wild domestic hot cold fresh ripe raw cooked fried grilled baked sliced fancy simple pretty beautiful
cute funny happy sad angry female male similar different same other another dead living bare leafy ornate
decorative decorated painted lit front rear back top bottom upper central main double single
"""

_OTHERS = """
the a an this that these those it its he him his she her hers they them their you your we our us my me there
here and or but not no nor with without of off from to into onto in inside outside out on upon over above
below under underneath beneath beside besides by near next nearest nearer closer closest close far farther
farthest further furthest behind ahead before after between among amid along across around against at as for
about through toward towards up down upward downward away apart together beyond past within per via than like
is are was were be been being am has have had having do does did doing can will would could should may might
must who whom whose which what where when while how why if then also too very quite rather almost just only
even still both all each every either neither some any none many much more most less least few several enough
two three four five six seven eight nine ten eleven twelve dozen half whole entire full partially partly
completely fully slightly barely mostly directly immediately standing sitting seated lying laying leaning
bending kneeling crouching squatting walking running jumping flying swimming riding driving skiing surfing
skating sleeping eating drinking grazing feeding playing holding carrying wearing dressed looking facing
watching staring pointing reaching talking smiling laughing crying waiting working cooking cutting pouring
hanging floating resting climbing crossing swinging hitting throwing catching kicking pulling pushing lifting
opening closing posing hugging kissing petting washing brushing cleaning using taking making growing covering
covered filled lined surrounded attached mounted placed located positioned shown seen visible hidden stacked
piled folded wrapped tied cut open opened closed shut empty alone turned turning heading going coming moving
leading following touching showing getting touch hold wear stand sit lie walk run eat drink play ride look
watch held worn made put set laid used upright alright forward forwards backward backwards sideways photo
image picture background foreground view camera viewer shot frame everything anything something nothing
everyone someone anyone somebody find segment show select mask mark highlight detect please outline locate
extract sunny cloudy rainy foggy daytime night day evening morning winter summer spring autumn eaten bitten
part partial mid middle
"""


def word_set(text: str) -> frozenset[str]:
    """The words of a list in one string."""
    return frozenset(text.split())


NOUNS = word_set(_NOUNS)
"""Nouns, mostly in the singular."""
ADJECTIVES = word_set(_ADJECTIVES)
"""Adjectives."""
WORDS = NOUNS | ADJECTIVES | word_set(_OTHERS)
"""All words."""


def base_form(word: str, words: frozenset[str] = WORDS) -> str | None:
    """The base form of a lower-case word, if it is one of `words`; else None."""
    return next((base for base in _base_forms(word) if base in words), None)


def _base_forms(word: str) -> list[str]:
    """A word and its possible base forms: without plural, -ed, -ing, -n't and 's."""
    word = word.removesuffix("'s").removesuffix("n't").removesuffix("'")
    forms = [word]
    if word.endswith("s"):
        forms += [word[:-1], word[:-2] if word.endswith("es") else word]
    if word.endswith("ies"):
        forms.append(f"{word[:-3]}y")
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            forms += [stem, f"{stem}e", stem[:-1] if stem[-2:-1] == stem[-1:] else stem]
    return forms
