# What redis-py sends: how it connects, PUBLISH, pipelines, and a subscriber.
import sys
import redis

url, = sys.argv[1:]
r = redis.Redis.from_url(url)
try:
    print(r.ping(), r.publish('room', 'text'), r.publish('room', b'\x00\xff\r\n'))
except redis.exceptions.RedisError as e:  # later versions have an AuthenticationError, without its first word
    print(e)
    sys.exit()
with r.pipeline() as p:  # MULTI and EXEC
    print(p.publish('room', 'a').publish('room', 'b').execute())
with r.pipeline(transaction=False) as p:
    print(p.publish('room', 'c').publish('room', 'd').execute())
s = r.pubsub()
s.subscribe('room')
print(s.get_message(timeout=20)['type'])
print(r.publish('room', 'e'), s.get_message(timeout=20)['data'])
s.ping()
print(s.get_message(timeout=20)['type'])
s.unsubscribe()
print(s.get_message(timeout=20)['type'])
try:
    r.get('x')
except redis.exceptions.ResponseError as e:
    print(e)
r.close()
