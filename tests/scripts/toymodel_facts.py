"""The toy model's facts, as they would stand in scripts/hubtools/models/toymodel.py."""

from ..facts import Layout, Package, rules, same


class Forwards:
    subjects = ("image",)

    def image(self) -> str:
        inputs = {"pixel_values": self.random(2, 3, 8, 8, seed=0)}
        outputs = self.run(**inputs)
        self.record("image", inputs, outputs)
        self.expect(tuple(outputs["last_hidden_state"].shape), (2, 4, self.config.hidden_size), "shape of the patches")
        self.expect_distinct(outputs["pooler_output"], "batch")
        return "4 patches"


def try_processor(probe, processor) -> str:
    return f"a picture becomes {tuple(processor(images=probe.picture(), return_tensors='pt')['pixel_values'].shape)}"


PACKAGE = Package(
    name="toymodel",
    model_type="toy_model",
    base_prefix="toy.",
    config_class="ToyConfig",
    configuration="configuration_toymodel",
    modeling="modeling_toymodel",
    models={"AutoModel": "ToyModel"},
    layouts=(Layout("hub", same("patches.{p}")), Layout("training", rules(("stem.conv.{p}", "patches.{p}")))),
    sizes=lambda shapes: {"hidden_size": shapes["patches.weight"][0], "patch_size": shapes["patches.weight"][-1]},
    parameters=lambda config: 3 * config.hidden_size * config.patch_size**2,
    forwards=Forwards,
    try_processor=try_processor,
    card_values=lambda recipe, config: {},
)
