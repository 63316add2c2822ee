from autopsae.hub.pull import pull as pull
from autopsae.hub.push import push as push
