// text/tokenizer_json.h: reads tokenizer.json and tokenizer_config.json, checks them and turns them
// into plain data. Every key of tokenizer.json is used or refused by name: INVALID_ARGUMENT with
// the file, the key, the value and what is supported. Of tokenizer_config.json only the keys that
// are used are checked. Pure, except for reading the files.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "text/bpe.h"
#include "text/character_vocabulary.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace fathom {

struct TokenizerSpec {
  // tokenizer.json
  std::vector<AddedToken> added_tokens;  // Ascending by id; ids and contents are distinct.
  bool nfc = false;
  std::optional<CharacterVocabulary> characters;  // nullopt: the vocabulary is byte-level.
  PreTokenizerSpec pre_tokenizer;
  std::vector<std::string> vocab_spellings;  // model.vocab by id; empty: there is no such token.
  BpeSpec bpe;
  std::vector<TokenId> prefix_ids, suffix_ids;  // The post-processor's special tokens.

  // tokenizer_config.json. The tokens of its added_tokens_decoder are in added_tokens.
  std::string bos_token, eos_token;
  std::optional<bool> add_bos_token, add_eos_token;
};

absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const std::string& folder);

}  // namespace fathom
