"""The nouns of the field: what an attacker may do and know, what is run, and what came of it.

Plain data from here on down: no SQL, no printing, and torch for typing only, so that planning and
reporting never wait for it.
"""

from benchbox.domain.nouns import DECLARED as DECLARED
from benchbox.domain.nouns import NULL_ATTACK as NULL_ATTACK
from benchbox.domain.nouns import Access as Access
from benchbox.domain.nouns import AttackKind as AttackKind
from benchbox.domain.nouns import Card as Card
from benchbox.domain.nouns import Cell as Cell
from benchbox.domain.nouns import ImageSpec as ImageSpec
from benchbox.domain.nouns import Nature as Nature
from benchbox.domain.nouns import Precision as Precision
from benchbox.domain.nouns import SampleList as SampleList
from benchbox.domain.nouns import Spec as Spec
from benchbox.domain.nouns import ViewSpec as ViewSpec
from benchbox.domain.nouns import known_precision as known_precision
from benchbox.domain.outcome import Evidence as Evidence
from benchbox.domain.outcome import Outcome as Outcome
from benchbox.domain.threat import NAMED as NAMED
from benchbox.domain.threat import SIGNS as SIGNS
from benchbox.domain.threat import TOLERANCE as TOLERANCE
from benchbox.domain.threat import Norm as Norm
from benchbox.domain.threat import ThreatModel as ThreatModel
from benchbox.domain.threat import format_epsilon as format_epsilon
