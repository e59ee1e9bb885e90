"""`reactor doctor`: whether a Redis and the settings are fit for the server, and how to fix what is not.

`discovery` finds every server of the deployment, `inspect` collects what each of them shows, and each file of
`checks` judges one subject by it. `apply` sends the commands that fix what a command can fix. Inspection
leaves nothing in Redis; two temporary keys expire on each primary.
"""
