"""fleet.yaml -> FleetSpec."""
