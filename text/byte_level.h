// text/byte_level.h: the alphabet of byte-level vocabularies: one printable character for each byte
// (GPT-2's). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fathom {

// The character, in UTF-8, that stands for `byte`.
const std::string& ByteLevelCharacter(uint8_t byte);
// The bytes that `token` stands for; nullopt if it has a character that is not of this alphabet.
std::optional<std::string> ByteLevelBytes(std::string_view token);

}  // namespace fathom
