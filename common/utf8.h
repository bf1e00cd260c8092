// common/utf8.h: the characters of a text. Pure. "Invalid" follows table 3-7 of Unicode: no
// overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom {

// The first part of a text.
struct Utf8Step {
  enum Kind {
    kCharacter,   // The first `bytes` bytes are the character `code_point`.
    kInvalid,     // The first `bytes` bytes fit into no character: a maximal subpart, one U+FFFD.
    kIncomplete,  // The whole text (`bytes`) is a proper prefix of a character.
  };
  Kind kind = kInvalid;
  size_t bytes = 0;
  char32_t code_point = 0;
};

// REQUIRES: !text.empty().
Utf8Step ScanUtf8(std::string_view text);

// The offset of the first byte that does not start a whole character; npos: none.
size_t FirstInvalidUtf8(std::string_view text);

// The first (last) character of a text. REQUIRES: `text` is UTF-8 and not empty.
char32_t FirstCodePoint(std::string_view text);
char32_t LastCodePoint(std::string_view text);
// The offset after the character at `offset`. REQUIRES: `text` is UTF-8; offset < text.size().
size_t NextCharacter(std::string_view text, size_t offset);

// Unicode's White_Space.
bool IsWhiteSpace(char32_t code_point);
// Whether \w of Unicode matches: letters, marks, decimal digits, connectors, joiners.
bool IsWordCharacter(char32_t code_point);
// `text` without white space at its start (end).
std::string_view TrimLeft(std::string_view text);
std::string_view TrimRight(std::string_view text);

// At most `bytes_max` bytes of `text`, in whole characters, with "..." if something was cut. Every
// message that quotes foreign text must use it, because an error whose text is not UTF-8 loses its
// details on the way to a client. REQUIRES: `text` is UTF-8.
std::string Shortened(std::string_view text, size_t bytes_max);
// The bytes as UTF-8, with one U+FFFD for each maximal invalid subpart.
std::string ToUtf8(std::string_view bytes);

// Converts bytes to UTF-8, with one U+FFFD for each maximal invalid subpart. It keeps up to 3 bytes
// of an incomplete character. The concatenated text does not depend on how the bytes were cut.
class Utf8Stream {
 public:
  void Append(std::string_view bytes, std::string* text);
  // The kept bytes become U+FFFD. The stream is then like new.
  void Flush(std::string* text);

 private:
  std::string pending_;  // A proper prefix of a character.
};

}  // namespace fathom
