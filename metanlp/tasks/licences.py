"""Under which licence the rows of a task are, as far as is known: what the data cards say."""

from __future__ import annotations

from metanlp.tasks.hub_client import HubName

# By the name of a task, or of what it is a part of.
LICENCES = {
    "mini": "Apache-2.0",
    "glue/cola": "research use",
    "glue/sst2": "research use",
    "glue/mrpc": "research use",
    "glue/rte": "research use",
    "glue/qqp": "Quora's non-commercial terms",
    "glue/qnli": "CC BY-SA 4.0",
    "glue/snli": "CC BY-SA 4.0",
    "glue/mnli": "OANC and others",
    "glue/wnli": "CC BY 4.0",
    "glue/stsb": "CC BY-SA 4.0",
    "leopard": "the repository states none",
    "intents/clinc150": "CC BY 3.0",
    "intents/hwu64": "CC BY 4.0",
    "topics/agnews": "non-commercial research",
    "topics/dbpedia14": "CC BY-SA 3.0",
    "topics/trec": "none stated",
}
OF_THE_HUB, UNKNOWN = "as its page on the Hub says", "not stated"


def licence_of(task: str, source: str) -> str:
    """Of a task by its name and where it came from. A task of somebody's own may be called as it likes."""
    hub = HubName.parse(source)
    published = source in {name.split("/")[0] for name in LICENCES} or (hub and task.startswith("glue/"))
    known = [licence for name, licence in LICENCES.items() if f"{task}/".startswith(f"{name}/")]
    return known[0] if published and known else OF_THE_HUB if hub else UNKNOWN
