// text/jinja/str.h: a string of a template: UTF-8 text, with a record of which bytes are literal.
// Literal bytes come from a client: no special token may be made of them, whatever they spell
// (EncodeOptions::literal_spans). Operations that inspect a string (compare, measure, search,
// slice, print) see only the text. Operations that make a string keep literal bytes literal.
//
// Ways to make a string:
//   Str("text")          the template's own text: no byte of it is literal;
//   Str::Literal(text)   a client's text: all of it is literal;
//   s.Slice(begin, end)  a part, with its literal bytes;
//   Concat(a, b)         a followed by b;
//   StrBuilder           everything else: parts of strings, and text inserted or replaced.
//
// A Str is a view of a shared buffer. Copies and slices copy no text. Concat appends to the buffer
// of the left string if that string ends at the end of the buffer. So a template that collects a
// text piece by piece ("ns.text = ns.text + x") copies each byte a constant number of times.
// Thread: a Str made in one of the first two ways may be shared between threads; all others belong
// to the rendering that made them.
// one rendering that made them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/byte_span.h"

namespace fathom::jinja {

class Str {
 public:
  Str() = default;
  explicit Str(std::string text) : Str(std::move(text), false) {}
  static Str Literal(std::string text) { return {std::move(text), true}; }

  // Valid until the next Concat with this string's buffer on the left.
  std::string_view view() const;
  std::string str() const { return std::string(view()); }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // Bytes [begin, end). REQUIRES: begin <= end <= size(); both are at the start of a character.
  Str Slice(size_t begin, size_t end) const;
  Str From(size_t begin) const { return Slice(begin, size_); }
  // The code points, each as a string.
  std::vector<Str> CodePoints() const;

  // The literal bytes: ascending, disjoint, and no span touches the next one.
  std::vector<ByteSpan> LiteralSpans() const;
  // Calls visit(text, literal), in order, for ranges that are completely literal or not literal at
  // all.
  template <class Visit>
  void ForEachRun(const Visit& visit) const {
    size_t done = 0;
    for (const ByteSpan& span : LiteralSpans()) {
      if (done < span.begin) visit(view().substr(done, span.begin - done), false);
      visit(view().substr(span.begin, span.end - span.begin), true);
      done = span.end;
    }
    if (done < size_) visit(view().substr(done), false);
  }

  // Compares only the texts.
  bool operator==(const Str& other) const { return view() == other.view(); }

 private:
  friend class StrBuilder;
  friend Str Concat(const Str& left, const Str& right);

  struct Buffer {
    std::string text;
    std::vector<ByteSpan> literal;  // In the form of LiteralSpans.
    bool may_grow = false;          // The buffer belongs to one rendering.

    void MarkLiteral(ByteSpan span);
    void Append(const Str& str);
  };

  Str(std::string text, bool literal);
  Str(std::shared_ptr<Buffer> buffer, size_t begin, size_t size)
      : buffer_(std::move(buffer)), begin_(begin), size_(size) {}

  std::shared_ptr<Buffer> buffer_;  // Null: empty.
  size_t begin_ = 0;
  size_t size_ = 0;
};

Str Concat(const Str& left, const Str& right);

// Makes a string from parts.
class StrBuilder {
 public:
  StrBuilder() : buffer_(std::make_shared<Str::Buffer>()) {}

  void Append(const Str& str) { buffer_->Append(str); }
  // The template's own text.
  void Append(std::string_view text) { buffer_->text.append(text); }
  void Append(char c) { buffer_->text.push_back(c); }
  // Appends text that replaces other text, which was literal or not.
  void AppendAs(std::string_view text, bool literal);

  size_t size() const { return buffer_->text.size(); }
  // Returns the string; the builder is then like new.
  Str Take();

 private:
  std::shared_ptr<Str::Buffer> buffer_;
};

}  // namespace fathom::jinja
