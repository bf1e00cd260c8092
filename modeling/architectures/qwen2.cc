// Qwen2, as the R1 distillations of Qwen 2.5 use it: Llama with biases on q, k and v.
#include "modeling/architectures/architecture.h"
#include "modeling/config/config_fields.h"

namespace fathom {
namespace {

void ConfigureQwen2(ConfigFields& fields, ModelConfig& config) {
  config.qkv_bias = true;
  fields.MustBe("attention_bias", true, "Qwen2ForCausalLM always has biases on q, k and v");
  fields.MustBe("mlp_bias", false, "Qwen2ForCausalLM has no biases in its MLP");
  fields.MustBe("use_mrope", false, "Qwen2ForCausalLM is supported with plain rotary positions");
}

}  // namespace

extern const Architecture kQwen2 = {"Qwen2ForCausalLM",
                                    "qwen2",
                                    {.context = 32768, .kv_heads = 32, .has_windows = true},
                                    ConfigureQwen2,
                                    DecoderSpec};

}  // namespace fathom
