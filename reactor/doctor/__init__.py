"""The doctor: whether a Redis gives the server what it needs, and what would mend it.

First everything is looked at (`admit`, `look`, `trials`, `probe`, `keyspace`); two throwaway keys that expire
are all that this leaves in Redis, and for a moment. Then each file of `checks` judges one subject by what was
seen. `treat` sets what may be set, for those who ask for that.
"""
