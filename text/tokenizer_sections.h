// text/tokenizer_sections.h: what reading tokenizer.json and tokenizer_config.json is made of,
// where it fills files of its own. Refusals as in tokenizer_json.h. Only for the .cc files of that.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/json_fields.h"
#include "text/tokenizer_json.h"

namespace fathom::router {

// Far above any vocabulary; bounds what a broken file allocates.
inline constexpr TokenId kTokenIdMax = (1 << 24) - 1;

// tokenizer_json.cc
absl::StatusOr<TokenId> ReadId(const JsonAt& at);
absl::StatusOr<AddedToken> ReadAddedToken(const JsonAt& at);

// tokenizer_config.cc
absl::Status ReadTokenizerConfig(const JsonAt& at, TokenizerSpec* spec);

// character_sections.cc: of a vocabulary of characters (character_vocabulary.h). Sections that are
// missing or null are nullopt.
absl::Status ReadCharacterSections(const std::optional<JsonAt>& normalizer,
                                   const std::optional<JsonAt>& pre_tokenizer,
                                   const std::optional<JsonAt>& decoder, const JsonAt& file,
                                   TokenizerSpec* spec);

}  // namespace fathom::router
