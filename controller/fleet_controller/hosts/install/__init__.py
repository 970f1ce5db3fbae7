"""Install: what a host needs to serve, brought there whole, once, and without the host reaching the internet.

release.py   what it is: the agent and the models' folders, named by their content
wheel.py     the agent, and pip, as wheels made of what is installed here
target.py    PURE  for which Python and which system wheels are wanted
lock.py      PURE  which wheels exactly, by their sha256
resolve.py   asks pip, once, what the requirements are for a target
shelf.py     files kept here by their sha256: wheels and weights
weights.py   where a model's weights come from
archives.py  packed releases, kept for the hosts that still need them
sending.py   progress and rate of what is sent
installer.py the way of all that to one host
bundle.py    all of it as one file, for sites without the internet
"""
