"""Never run: fleet.yaml files of the tests name it."""


class Tiny: ...
