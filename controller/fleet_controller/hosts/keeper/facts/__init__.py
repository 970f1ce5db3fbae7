"""What a host can say about itself for `fleetctl doctor`: facts, no judgements. One file a subject."""
