// common/utf8.h: what is a character and what is not.
// Pure. "Invalid" follows Unicode's table 3-7: no overlong forms, no surrogates, nothing above
// U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom {

// How a text begins.
struct Utf8Step {
  enum Kind {
    kCharacter,   // `bytes` of a whole character, which is `code_point`.
    kInvalid,     // `bytes` that can be in no character: a maximal subpart, one U+FFFD.
    kIncomplete,  // All of the text, `bytes`, is a proper prefix of a character.
  };
  Kind kind = kInvalid;
  size_t bytes = 0;
  char32_t code_point = 0;
};

// REQUIRES: !text.empty().
Utf8Step ScanUtf8(std::string_view text);

// Offset of the first byte that starts no whole character; npos if there is none.
size_t FirstInvalidUtf8(std::string_view text);

// The character that begins (ends) a text. REQUIRES: `text` is UTF-8 and not empty.
char32_t FirstCodePoint(std::string_view text);
char32_t LastCodePoint(std::string_view text);
// Offset behind the character at `offset`. REQUIRES: `text` is UTF-8; offset < text.size().
size_t NextCharacter(std::string_view text, size_t offset);

// Unicode's White_Space.
bool IsWhiteSpace(char32_t code_point);
// What \w matches in Unicode's sense: letters, marks, decimal digits, connectors, joiners.
bool IsWordCharacter(char32_t code_point);
// `text` without white space at its begin (end).
std::string_view TrimLeft(std::string_view text);
std::string_view TrimRight(std::string_view text);

// For messages: at most `bytes_max` bytes of `text`, whole characters, and "..." where any is left
// out. What quotes a text of somebody else goes through this: an error whose text is not UTF-8
// loses its details on the way to a client. REQUIRES: `text` is UTF-8.
std::string Shortened(std::string_view text, size_t bytes_max);
// The bytes as UTF-8, each maximal invalid subpart as one U+FFFD.
std::string ToUtf8(std::string_view bytes);

// Bytes to UTF-8, each maximal invalid subpart as one U+FFFD. Keeps back the at most 3 bytes of a
// character that is not complete yet. The concatenation does not depend on how the bytes were cut.
class Utf8Stream {
 public:
  void Append(std::string_view bytes, std::string* text);
  // What is kept back becomes U+FFFD. The stream is then as new.
  void Flush(std::string* text);

 private:
  std::string pending_;  // A proper prefix of a character.
};

}  // namespace fathom
