"""The doctor: does this Redis give the server what it needs, and what would mend it?"""
