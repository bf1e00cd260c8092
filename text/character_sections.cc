// Reads the sections of a tokenizer.json whose vocabulary consists of characters.
#include <string>

#include "text/tokenizer_sections.h"

namespace fathom {
namespace {

// {"type": "Replace", "pattern": {"String": from}, "content": to}
absl::Status ReadReplace(JsonFields* fields, std::string_view from, std::string_view to) {
  const std::optional<JsonAt> pattern = fields->Find("pattern");
  FATHOM_ASSIGN_OR_RETURN(const std::string content, fields->String("content"));
  if (!pattern || pattern->value != Json({{"String", from}}) || content != to) {
    return fields->at().Refuse(fmt::format("supported is '{}' to '{}'", from, to));
  }
  return absl::OkStatus();
}

struct Seen {
  bool replace = false;
  bool byte_fallback = false;
};

absl::Status ReadNormalizer(const JsonAt& at, Seen* seen, CharacterVocabulary* vocabulary) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    const std::optional<JsonAt> list = fields.Find("normalizers");
    if (!list || !list->value.is_array()) return at.Refuse("expected a list `normalizers`");
    for (size_t i = 0; i < list->value.size(); ++i) {
      FATHOM_RETURN_IF_ERROR(ReadNormalizer(list->Element(i), seen, vocabulary));
    }
  } else if (type == "Prepend" && !seen->replace) {
    FATHOM_ASSIGN_OR_RETURN(const std::string prepend, fields.String("prepend"));
    if (prepend != kMetaspace) return at.Refuse(fmt::format("supported is '{}'", kMetaspace));
    vocabulary->prefix = CharacterVocabulary::Prefix::kEach;
  } else if (type == "Replace") {
    seen->replace = true;
    FATHOM_RETURN_IF_ERROR(ReadReplace(&fields, " ", kMetaspace));
  } else {
    return at.Refuse("with model.byte_fallback, supported are Prepend, Replace and Sequence");
  }
  return fields.Done();
}

// Reads a pre-tokenizer or a decoder; both have the same fields.
absl::StatusOr<CharacterVocabulary::Prefix> ReadMetaspace(JsonFields* fields, bool* split) {
  fields->Ignore("str_rep");
  FATHOM_ASSIGN_OR_RETURN(const std::string replacement, fields->String("replacement"));
  if (replacement != kMetaspace) {
    return fields->at().Refuse(fmt::format("supported is the replacement '{}'", kMetaspace));
  }
  FATHOM_ASSIGN_OR_RETURN(const bool add_prefix, fields->Bool("add_prefix_space", true));
  FATHOM_ASSIGN_OR_RETURN(const std::string scheme,
                          fields->String("prepend_scheme", add_prefix ? "always" : "never"));
  FATHOM_ASSIGN_OR_RETURN(*split, fields->Bool("split", true));
  if (scheme == "always") return CharacterVocabulary::Prefix::kMissing;
  if (scheme == "first") return CharacterVocabulary::Prefix::kFirst;
  if (scheme == "never") return CharacterVocabulary::Prefix::kNone;
  return fields->at().Refuse("supported values of prepend_scheme are always, first and never");
}

absl::Status ReadPreTokenizer(const JsonAt& at, Seen* seen, TokenizerSpec* spec) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type != "Metaspace" || seen->replace) {
    return at.Refuse("with model.byte_fallback, supported is Metaspace, without a normalizer");
  }
  seen->replace = true;
  bool split = true;
  FATHOM_ASSIGN_OR_RETURN(spec->characters->prefix, ReadMetaspace(&fields, &split));
  if (split) {
    spec->pre_tokenizer.splits.push_back(
        {.pattern = " ", .is_regex = false, .behavior = SplitBehavior::kMergedWithNext});
  }
  return fields.Done();
}

absl::Status ReadDecoder(const JsonAt& at, Seen* seen, CharacterVocabulary* vocabulary) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    const std::optional<JsonAt> list = fields.Find("decoders");
    if (!list || !list->value.is_array()) return at.Refuse("expected a list `decoders`");
    for (size_t i = 0; i < list->value.size(); ++i) {
      FATHOM_RETURN_IF_ERROR(ReadDecoder(list->Element(i), seen, vocabulary));
    }
  } else if (type == "Replace") {
    seen->replace = true;
    FATHOM_RETURN_IF_ERROR(ReadReplace(&fields, kMetaspace, " "));
  } else if (type == "ByteFallback") {
    seen->byte_fallback = true;
  } else if (type == "Strip" && seen->replace) {
    const std::optional<JsonAt> content = fields.Find("content"), start = fields.Find("start"),
                                stop = fields.Find("stop");
    if (!content || content->value != " " || !start || start->value != 1 || !stop ||
        stop->value != 0) {
      return at.Refuse("supported is content ' ', start 1, stop 0");
    }
    vocabulary->strips_first_space = true;
  } else if (type != "Fuse") {
    return at.Refuse(
        "with model.byte_fallback, supported are Replace, ByteFallback, Fuse, Strip and Sequence");
  }
  return fields.Done();
}

}  // namespace

absl::Status ReadCharacterSections(const std::optional<JsonAt>& normalizer,
                                   const std::optional<JsonAt>& pre_tokenizer,
                                   const std::optional<JsonAt>& decoder, const JsonAt& file,
                                   TokenizerSpec* spec) {
  Seen encodes, decodes;
  if (normalizer) {
    FATHOM_RETURN_IF_ERROR(ReadNormalizer(*normalizer, &encodes, &*spec->characters));
  }
  if (pre_tokenizer) FATHOM_RETURN_IF_ERROR(ReadPreTokenizer(*pre_tokenizer, &encodes, spec));
  if (!encodes.replace) {
    return Invalid(
        "{}normalizer has no Replace of ' ' and pre_tokenizer no Metaspace; one of them "
        "must be there with model.byte_fallback",
        file.where);
  }
  if (decoder) FATHOM_RETURN_IF_ERROR(ReadDecoder(*decoder, &decodes, &*spec->characters));
  if (!decodes.replace || !decodes.byte_fallback) {
    return Invalid("{}decoder needs Replace and ByteFallback with model.byte_fallback", file.where);
  }
  return absl::OkStatus();
}

}  // namespace fathom
