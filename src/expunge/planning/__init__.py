"""Train on record, publish, plan, run: the only place that knows every room below.

What a method says about its run is believed nowhere: noise is handed out and watched, weights, digests and noise levels are
compared here, forgotten rows are withheld where they are not needed, and certificates are made from what was seen.
"""

from expunge.planning.checks import eligible as eligible
from expunge.planning.checks import refusal_of as refusal_of
from expunge.planning.plan import plan as plan
from expunge.planning.publishing import adopt as adopt
from expunge.planning.publishing import fix_budget as fix_budget
from expunge.planning.publishing import publish as publish
from expunge.planning.publishing import train as train
from expunge.planning.running import Plan as Plan
