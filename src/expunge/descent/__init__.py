"""The loop that gradient methods share: streams, schedule, parameters, optimizer, guard."""
