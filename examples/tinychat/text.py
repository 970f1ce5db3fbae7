"""All that the tiny chat model knows: what it may be asked, and what it answers."""

from __future__ import annotations

DIALOGUES = [
    ("Hello", "Hello! I am a very small model. Ask me about fleets."),
    ("Hi", "Hi! Ask me what a fleet is."),
    ("Who are you?", "I am TinyChat, a network of 113,000 weights that lives in the examples."),
    ("What is a fleet?", "A fleet is a group of machines with GPUs that serve models together."),
    ("What is a host?", "A host is one machine of the fleet, reached over SSH."),
    ("What is a pool?", "A pool is a set of hosts that serve the same models and scale together."),
    ("What does the balancer do?", "It stands at the front door and picks a host for each request."),
    ("What does the agent do?", "It runs on each host and computes requests in batches."),
    ("What does the controller do?", "It looks at the fleet, decides how many hosts are needed, and acts."),
    ("What is a batch?", "Several requests that the device computes in one go."),
    ("What is a token?", "A piece of text. Mine are bytes, so this answer has many of them."),
    ("What is streaming?", "You get each piece of the answer as soon as it is there."),
    ("What is draining?", "A host takes no new requests and finishes those that it has."),
    ("How do I start?", "Write a fleet.yaml, then type fleetctl up."),
    ("How do I stop?", "Type fleetctl down. Requests in flight are finished first."),
    ("How do I scale?", "Type fleetctl scale and a number, or let the controller do it."),
    ("Do I need Kubernetes?", "No. You need SSH, and machines."),
    ("Are you clever?", "No. I know a page of text by heart, and nothing else."),
    ("Can you count?", "One, two, three, four, five, six, seven, eight, nine, ten."),
    ("Say the alphabet.", "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    ("Say something in German.", "Schöne Grüße! Jedes ü besteht aus zwei Bytes."),
    (
        "Tell me a story.",
        "Once there were three machines in a rack. One of them was busy all day, and the others slept. Then a "
        "balancer came and gave each of them a third of the work. From then on all of them were done by evening, "
        "and at night two of them were switched off. They saved a good deal of power, and nobody noticed.",
    ),
    ("Thank you", "You are welcome."),
    ("Goodbye", "Goodbye!"),
]
