// text/normalizer.h: Unicode's canonical composition (NFC) that keeps track of spans. O(n log n)
// for any text. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace fathom {

// Whether NFC may change the text. False for most texts; a true may be wrong.
bool NfcMayChange(std::string_view text);

// Writes NFC(text) to *out, and to *out_spans where `spans` are in it (extended to whole groups of
// characters that compose). Returns false, with both unchanged, if the text needs no check because
// it is NFC. REQUIRES: `text` is UTF-8; spans are ascending and disjoint.
bool NormalizeNfc(std::string_view text, std::span<const ByteSpan> spans, std::string* out,
                  std::vector<ByteSpan>* out_spans);

}  // namespace fathom
