"""`focusd doctor`: looks at everything that a rig needs, and says what to do about each finding."""

from focusd.doctor.examine import examine as examine
from focusd.doctor.examine import healthy as healthy
from focusd.doctor.finding import Ask as Ask
from focusd.doctor.finding import Finding as Finding
