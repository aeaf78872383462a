"""The quick start, by the client that `openapi-python-client` makes of the document.

What it needs comes as JSON in the variable QUICK_START: base, key, install, mysql and postgres (host, port, user, password), source, target.
"""

import json
import os
import time

from millrace_client import Client
from millrace_client.api.connections import create_connection
from millrace_client.api.query import query_federated
from millrace_client.api.stream_configs import create_stream_config
from millrace_client.api.streams import get_stream_stats, start_stream
from millrace_client.models import ConnectionRequest, ErrorBody, FederatedRequest, StreamSpec

given = json.loads(os.environ["QUICK_START"])
headers = {"X-API-Key": given["key"], "X-Install-ID": given["install"]}
client = Client(base_url=given["base"] + "/api/v1", headers=headers, raise_on_unexpected_status=True)


def answer(response):
    assert not isinstance(response.parsed, ErrorBody), response.parsed
    assert response.parsed is not None, response
    return response.parsed


def connect(name, kind, server, database):
    spec = {"database": {"host": server["host"], "port": server["port"], "username": server["user"], "password": server["password"], "database": database}}
    body = ConnectionRequest.from_dict({"name": name, "type": kind, "spec": spec})
    return answer(create_connection.sync_detailed(client=client, body=body)).id


source = connect("my", "mysql", given["mysql"], given["source"])
target = connect("pg", "postgresql", given["postgres"], given["target"])
config = StreamSpec.from_dict(
    {
        "name": "copy",
        "mode": "convert",
        "source": {"connections": [{"connectionId": source, "database": given["source"]}]},
        "target": {"id": target, "spec": {"db": {"database": given["target"]}}},
    }
)
stored = answer(create_stream_config.sync_detailed(client=client, body=config))
stream = answer(start_stream.sync_detailed(stored.id, client=client)).id
end = time.monotonic() + 120
while True:
    stats = answer(get_stream_stats.sync_detailed(stream, client=client))
    if str(stats.status) not in ("READY", "RUNNING"):
        break
    assert time.monotonic() < end, stats
    time.sleep(0.05)
assert str(stats.status) == "FINISHED", stats
assert stats.tables[0].rows_written == given["rows"], stats

sql = f"SELECT count(*) AS n FROM my.{given['source']}.products m JOIN pg.public.products p USING (id)"
joined = answer(query_federated.sync_detailed(client=client, body=FederatedRequest(sql=sql)))
assert joined.rows == [[given["rows"]]], joined
print("quick start: done")
