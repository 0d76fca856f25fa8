"""The rule that gives a text its labels: which of `caption.labels` it speaks of, and by what share.

A label gate needs to know of each clip, and of each prompt later, which branch is meant. Both have words, so one rule
over words serves both, and a prompt is read as the captions of training were. It knows no grammar: it looks for words
that speak of a label, and what is named first counts most. A text with none of the words has no labels: "" means
unknown, never a guess.
"""

import re
from collections.abc import Mapping, Sequence

from ptta_core.clips_config import CaptionConfig
from ptta_core.ids import canonical

# The words of the paper's four labels [ours: the paper names the labels alone]. Singular; "*man" is any word so ending.
WORDS = {
    "male": """male *man *boy lad guy gentleman father dad uncle brother son grandfather grandpa husband groom king
        prince lord wizard knight monk priest sailor actor waiter hero he him his himself""",
    "female": """female *woman *girl lady mother mom mum aunt sister daughter grandmother grandma wife bride queen
        princess witch nun actress waitress heroine ballerina maid she her hers herself""",
    "object": """object thing toy ball doll puppet robot machine engine car truck bus train tram bicycle bike motorcycle
        boat ship plane airplane aircraft helicopter rocket spaceship balloon kite cart wagon wheel sword blade knife
        gun bow arrow shield hammer axe tool box chest bag basket bottle cup glass plate bowl pot lamp lantern candle
        torch book letter map key coin clock watch phone radio hat coat umbrella flag rope net ladder chair table animal
        creature monster dragon dinosaur dog cat horse cow pig sheep goat bear wolf fox rabbit mouse rat lion tiger
        elephant monkey bird crow owl eagle gull pigeon duck chicken fish shark whale turtle frog snake insect bee
        butterfly spider""",
    "background": """background landscape scenery sky cloud sun moon star sunrise sunset dawn dusk night rain snow
        storm wind fog mist lightning sea ocean lake river stream waterfall wave water beach coast shore island mountain
        hill valley cliff cave desert dune field meadow grass forest jungle wood tree garden park path road street alley
        bridge pier harbour harbor village town city castle tower palace temple church house home hut building roof wall
        window door room kitchen hall corridor stair floor ground stage station school shop market square farm factory
        space planet""",
}
NOT_MEN = {"human", "talisman", "caiman", "ottoman", "roman", "german", "norman"}  # end in man, and say no sex
PLURALS = {"men": "man", "mice": "mouse", "wolves": "wolf", "knives": "knife"}


def labels_of(text: str, config: CaptionConfig) -> str:
    """The labels of a caption or prompt as JSON, label -> share (0..1, the sum is 1); "" where it names none.

    The k-th different word found that speaks of some label counts 1/k for it: the subject comes first, and a word that
    is repeated says nothing new.
    """
    weights: dict[str, float] = {}
    rank = 0
    for word in dict.fromkeys(re.findall(r"[^\W\d_]+", text.lower())):
        spoken_of = [label for label in config.labels if speaks(word, words_of(label, config.label_words))]
        rank += bool(spoken_of)
        for label in spoken_of:
            weights[label] = weights.get(label, 0.0) + 1 / rank / len(spoken_of)
    total = sum(weights.values())
    return canonical({label: round(weight / total, 4) for label, weight in weights.items()}) if weights else ""


def words_of(label: str, own: Mapping[str, Sequence[str]]) -> list[str]:
    """The words that speak of a label: the recipe's, else those above, else the label's own name."""
    return [word.lower() for word in own.get(label) or WORDS.get(label, label).split()]


def speaks(word: str, words: Sequence[str]) -> bool:
    """Whether a word (lower case), in the singular or plural, is one of these."""
    for form in singulars(word):
        for known in words:
            if form == known or (known.startswith("*") and form.endswith(known[1:]) and not _other_sex(form, known)):
                return True
    return False


def _other_sex(form: str, known: str) -> bool:
    """Women end in man too, and so do words for no man."""
    return known == "*man" and (form in NOT_MEN or form.endswith("woman"))


def singulars(word: str) -> list[str]:
    """What a word may be the plural of, itself first."""
    irregular = [word.removesuffix(many) + one for many, one in PLURALS.items() if word.endswith(many)]
    regular = [word.removesuffix(end) + back for end, back in (("ies", "y"), ("es", ""), ("s", ""))
               if word.endswith(end) and len(word) > len(end) + 1]  # fmt: skip
    return [word, *irregular, *regular]
