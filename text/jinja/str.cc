#include "text/jinja/str.h"

#include <algorithm>
#include <utility>

#include "text/jinja/value.h"

namespace fathom::jinja {

Str::Str(std::string text, bool literal) {
  if (text.empty()) return;
  size_ = text.size();
  buffer_ = std::make_shared<Buffer>();
  buffer_->text = std::move(text);
  if (literal) buffer_->literal.push_back({0, size_});
}

std::string_view Str::view() const {
  return buffer_ == nullptr ? std::string_view()
                            : std::string_view(buffer_->text).substr(begin_, size_);
}

Str Str::Slice(size_t begin, size_t end) const {
  if (begin == end) return {};
  return {buffer_, begin_ + begin, end - begin};
}

std::vector<Str> Str::CodePoints() const {
  std::vector<Str> points;
  size_t at = 0;
  for (const std::string_view point : jinja::CodePoints(view())) {
    points.push_back(Slice(at, at + point.size()));
    at += point.size();
  }
  return points;
}

std::vector<ByteSpan> Str::LiteralSpans() const {
  std::vector<ByteSpan> spans;
  if (buffer_ == nullptr) return spans;
  const std::vector<ByteSpan>& all = buffer_->literal;
  const size_t end = begin_ + size_;
  auto span = std::partition_point(all.begin(), all.end(),
                                   [&](const ByteSpan& s) { return s.end <= begin_; });
  for (; span != all.end() && span->begin < end; ++span) {
    spans.push_back({std::max(span->begin, begin_) - begin_, std::min(span->end, end) - begin_});
  }
  return spans;
}

void Str::Buffer::MarkLiteral(ByteSpan span) {
  if (!literal.empty() && literal.back().end == span.begin) {
    literal.back().end = span.end;
  } else {
    literal.push_back(span);
  }
}

void Str::Buffer::Append(const Str& str) {
  const size_t at = text.size();
  const std::vector<ByteSpan> spans = str.LiteralSpans();
  text.append(str.view());  // view() may point into this buffer; append handles that.
  for (const ByteSpan& span : spans) MarkLiteral({at + span.begin, at + span.end});
}

Str Concat(const Str& left, const Str& right) {
  if (left.empty()) return right;
  if (right.empty()) return left;
  const size_t size = left.size() + right.size();
  if (left.buffer_->may_grow && left.begin_ + left.size_ == left.buffer_->text.size()) {
    left.buffer_->Append(right);
    return {left.buffer_, left.begin_, size};
  }
  auto buffer = std::make_shared<Str::Buffer>();
  buffer->may_grow = true;
  buffer->text.reserve(size);
  buffer->Append(left);
  buffer->Append(right);
  return {std::move(buffer), 0, size};
}

void StrBuilder::AppendAs(std::string_view text, bool literal) {
  const size_t begin = buffer_->text.size();
  buffer_->text.append(text);
  if (literal && !text.empty()) buffer_->MarkLiteral({begin, begin + text.size()});
}

Str StrBuilder::Take() {
  auto buffer = std::exchange(buffer_, std::make_shared<Str::Buffer>());
  const size_t size = buffer->text.size();
  if (size == 0) return {};
  buffer->may_grow = true;
  return {std::move(buffer), 0, size};
}

}  // namespace fathom::jinja
