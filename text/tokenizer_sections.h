// text/tokenizer_sections.h: the parts of reading tokenizer.json and tokenizer_config.json that
// have .cc files of their own. Errors as in tokenizer_json.h. Only for those .cc files.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/json_fields.h"
#include "text/tokenizer_json.h"

namespace fathom {

// Far above any vocabulary; limits what a broken file can allocate.
inline constexpr TokenId kTokenIdMax = (1 << 24) - 1;

// tokenizer_json.cc
absl::StatusOr<TokenId> ReadId(const JsonAt& at);
absl::StatusOr<AddedToken> ReadAddedToken(const JsonAt& at);

// tokenizer_config.cc
absl::Status ReadTokenizerConfig(const JsonAt& at, TokenizerSpec* spec);

// character_sections.cc, for a vocabulary of characters (character_vocabulary.h). A section that is
// missing or null is nullopt.
absl::Status ReadCharacterSections(const std::optional<JsonAt>& normalizer,
                                   const std::optional<JsonAt>& pre_tokenizer,
                                   const std::optional<JsonAt>& decoder, const JsonAt& file,
                                   TokenizerSpec* spec);

}  // namespace fathom
