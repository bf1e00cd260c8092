#include "modeling/config/config_rope.h"

#include <cmath>
#include <optional>
#include <string>

#include "common/status.h"

namespace fathom {
namespace {

constexpr double kThetaMax = 1e12;
constexpr double kFactorMax = 1e6;

// Keys that no kind of scaling reads, and the values that a key may have for the kinds that do not
// read it.
constexpr HarmlessKey kHarmlessScalingKeys[] = {
    {"partial_rotary_factor", 1.0}, {"factor", 1.0}, {"attention_factor", 1.0},
    {"extrapolation_factor", 1.0},  {"finetuned"},
};

// YaRN's attention factor for `factor` times the context, as fitted by its authors.
double YarnScale(double factor, double weight) {
  return factor <= 1.0 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

// attention_factor is the factor itself. Without it the factor follows from `factor`, or it is the
// quotient of the factors that mscale and mscale_all_dim give; attn_factor multiplies it.
double ReadAttentionFactor(ConfigFields& fields, double factor) {
  constexpr double kMin = 1e-3, kMax = 1e3;
  const bool is_given = fields.Take("attention_factor") != nullptr;
  const bool is_multiplied = fields.Take("attn_factor") != nullptr;
  if (is_given && is_multiplied) {
    fields.Refuse("attn_factor",
                  "stands beside attention_factor, which replaces what attn_factor multiplies; "
                  "keep one of them");
  }
  const double weight = fields.RealOr("mscale", 1.0, 0.0, kMax);
  const double weight_all = fields.RealOr("mscale_all_dim", 0.0, 0.0, kMax);
  const double computed = YarnScale(factor, weight) / YarnScale(factor, weight_all);
  return is_given ? fields.RealOr("attention_factor", 1.0, kMin, kMax)
                  : computed * fields.RealOr("attn_factor", 1.0, kMin, kMax);
}

void ReadYarn(ConfigFields& fields, int32_t context, RopeConfig& rope) {
  rope.scaling = RopeScaling::kYarn;
  rope.original_context = fields.IntOr("original_max_position_embeddings", context, 1, kContextMax);
  // The meaning of DeepSeek V3's configuration if the factor is missing.
  const double ratio = static_cast<double>(context) / rope.original_context;
  if (fields.Take("factor") == nullptr && ratio < 1.0) {
    fields.Refuse("factor", fmt::format("is missing; expected a number from 1 to {}", kFactorMax));
    return;
  }
  rope.factor = fields.RealOr("factor", ratio, 1.0, kFactorMax);
  rope.beta_fast = fields.RealOr("beta_fast", rope.beta_fast, 1e-3, kFactorMax);
  rope.beta_slow = fields.RealOr("beta_slow", rope.beta_slow, 1e-3, kFactorMax);
  rope.truncate = fields.BoolOr("truncate", true);
  rope.attention_factor = ReadAttentionFactor(fields, rope.factor);
  if (rope.beta_fast < rope.beta_slow) {
    fields.Refuse("beta_fast",
                  fmt::format("= {} is below beta_slow = {}; expected at least as much",
                              rope.beta_fast, rope.beta_slow));
  }
  if (rope.theta <= 1.0) {
    fields.Refuse("rope_theta", fmt::format("is {}; yarn needs one above 1", rope.theta));
  }
}

void ReadLlama3(ConfigFields& fields, RopeConfig& rope) {
  rope.scaling = RopeScaling::kLlama3;
  rope.factor = fields.Real("factor", 1.0, kFactorMax);
  rope.low_freq_factor = fields.Real("low_freq_factor", 1e-3, kFactorMax);
  rope.high_freq_factor = fields.Real("high_freq_factor", 1e-3, kFactorMax);
  rope.original_context = fields.Int("original_max_position_embeddings", 1, kContextMax);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    fields.Refuse("high_freq_factor", fmt::format("= {} is not above low_freq_factor = {}",
                                                  rope.high_freq_factor, rope.low_freq_factor));
  }
}

// Dynamic scaling raises theta only for sequences longer than max_position_embeddings. No sequence
// here is longer, so the plain embedding is used.
void ReadDynamic(ConfigFields& fields, int32_t context) {
  fields.Real("factor", 1.0, kFactorMax);
  const int32_t original =
      fields.IntOr("original_max_position_embeddings", context, 1, kContextMax);
  if (original < context) {
    fields.Refuse(
        "original_max_position_embeddings",
        fmt::format("= {} is less than max_position_embeddings = {}: with dynamic scaling the "
                    "frequencies of longer sequences change with their length, which is not "
                    "supported; set max_position_embeddings to {}, or use yarn",
                    original, context, original));
  }
}

// `fields` is the object that names the kind: rope_scaling, or rope_parameters with theta in it.
void ReadScaling(ConfigFields& fields, int32_t context, RopeConfig& rope) {
  const std::string older = fields.StringOr("type", "default");
  const std::string kind = fields.StringOr("rope_type", older);
  const char* const key = fields.Take("rope_type") != nullptr ? "rope_type" : "type";
  if (fields.Take("type") != nullptr && kind != older) {
    fields.Refuse("rope_type",
                  fmt::format("is \"{}\" and type \"{}\"; keep one of them", kind, older));
  } else if (kind == "linear") {
    rope.scaling = RopeScaling::kLinear;
    rope.factor = fields.Real("factor", 1.0, kFactorMax);
    fields.IntOr("original_max_position_embeddings", 1, 1, kContextMax);
  } else if (kind == "llama3") {
    ReadLlama3(fields, rope);
  } else if (kind == "yarn") {
    ReadYarn(fields, context, rope);
  } else if (kind == "dynamic") {
    ReadDynamic(fields, context);
  } else if (kind == "longrope" || kind == "su") {
    fields.Refuse(key, fmt::format("is \"{}\": its table of factors changes with the length of a "
                                   "sequence, which is not supported; supported are default, "
                                   "linear, dynamic, yarn and llama3",
                                   kind));
  } else if (kind == "default") {
    fields.IntOr("original_max_position_embeddings", 1, 1, kContextMax);
  } else {
    fields.Refuse(key, fmt::format("is \"{}\"; supported are default, linear, dynamic, yarn and "
                                   "llama3",
                                   kind));
  }
}

// Reads one of the two objects; nullopt: it is absent or was refused.
std::optional<RopeConfig> ReadObject(ConfigFields& fields, std::string_view key, int32_t context,
                                     const RopeConfig& plain) {
  const JsonValue* value = fields.Take(key);
  if (value == nullptr) return std::nullopt;
  if (value->AsObject() == nullptr) {
    fields.Refuse(key, fmt::format("is {}; expected an object or null", value->Brief()));
    return std::nullopt;
  }
  ConfigFields scaling(*value->AsObject(), std::string(key) + ".");
  RopeConfig rope = plain;
  rope.theta = scaling.RealOr("rope_theta", rope.theta, 1.0, kThetaMax);
  if (fields.Take("rope_theta") != nullptr && rope.theta != plain.theta) {
    scaling.Refuse("rope_theta", fmt::format("= {} and rope_theta = {} differ; keep one of them",
                                             rope.theta, plain.theta));
  }
  ReadScaling(scaling, context, rope);
  fields.Adopt(scaling.Finish(kHarmlessScalingKeys));
  return rope;
}

}  // namespace

void ReadRope(ConfigFields& fields, int32_t context, RopeConfig& rope) {
  rope.theta = fields.RealOr("rope_theta", rope.theta, 1.0, kThetaMax);
  const auto older = ReadObject(fields, "rope_scaling", context, rope);
  const auto newer = ReadObject(fields, "rope_parameters", context, rope);
  if (older && newer) {
    // Programs that write both forms repeat the values. theta may be in only one of them.
    RopeConfig same = *newer;
    if (older->theta == rope.theta) same.theta = rope.theta;
    if (same != *older) {
      fields.Refuse("rope_parameters",
                    "stands beside rope_scaling and says something else; keep one of them");
    }
  }
  if (older) rope = *older;
  if (newer) rope = *newer;
}

}  // namespace fathom
