#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <set>
#include <utility>

#include "common/utf8.h"
#include "text/jinja/lexer.h"
#include "text/jinja/resolve.h"

namespace fathom::jinja {
namespace {

constexpr const char* kReserved[] = {"and", "or", "not", "if", "else", "in", "is"};

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(Tokenize(source)) {}

  Block Run() {
    Block block = Body({});
    return block;
  }

 private:
  // ---- Tokens ----
  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& Next() {
    const Token& token = Peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool IsOp(std::string_view op) const {
    return Peek().kind == TokenKind::kOperator && Peek().text == op;
  }
  bool IsWord(std::string_view word) const {
    return Peek().kind == TokenKind::kName && Peek().text == word;
  }
  bool TakeOp(std::string_view op) { return IsOp(op) && (Next(), true); }
  bool TakeWord(std::string_view word) { return IsWord(word) && (Next(), true); }
  [[noreturn]] void Fail(const std::string& what) const {
    throw TemplateError(fmt::format("line {}: {}", Peek().line, what));
  }
  std::string Shown() const {
    return Peek().kind == TokenKind::kEnd ? "the end of the template"
                                          : fmt::format("'{}'", Peek().text);
  }
  void WantOp(std::string_view op) {
    if (!TakeOp(op)) Fail(fmt::format("expected '{}', found {}", op, Shown()));
  }
  std::string WantName() {
    if (Peek().kind != TokenKind::kName) Fail(fmt::format("expected a name, found {}", Shown()));
    return Next().text;
  }
  void WantBlockEnd() {
    if (Peek().kind != TokenKind::kBlockEnd) Fail(fmt::format("expected %}}, found {}", Shown()));
    Next();
  }

  // Limits the recursion of the parser, so that a template with a million brackets gives an error
  // and not a crash.
  struct Deeper {
    explicit Deeper(Parser* parser) : parser_(parser) {
      if (++parser_->depth_ > kParseDepthMax)
        parser_->Fail(fmt::format("nested deeper than {}", kParseDepthMax));
    }
    ~Deeper() { --parser_->depth_; }
    Parser* parser_;
  };

  std::unique_ptr<Expr> Make(ExprKind kind) const {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = Peek().line;
    return expr;
  }
  // Limits the height of an expression, also without nested brackets ("a.b.b.b"), because code that
  // visits it may recurse.
  void Grow(Expr* parent, const Expr& child) const {
    parent->height = std::max(parent->height, child.height + 1);
    if (parent->height > kExprHeightMax) {
      Fail(fmt::format("an expression is nested deeper than {}", kExprHeightMax));
    }
  }
  void Adopt(Expr* parent, ExprPtr child) const {  // `child` may be null.
    if (child != nullptr) Grow(parent, *child);
    parent->args.push_back(std::move(child));
  }
  std::unique_ptr<Node> MakeNode(NodeKind kind) const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = Peek().line;
    return node;
  }

  // ---- Statements ----
  // Parses nodes up to a block tag whose word is one of `ends` (not consumed, but its {% is), or up
  // to the end of the source.
  Block Body(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(this);
    Block block;
    while (true) {
      switch (Peek().kind) {
        case TokenKind::kText: {
          auto node = MakeNode(NodeKind::kText);
          node->text = Next().text;
          block.push_back(std::move(node));
          break;
        }
        case TokenKind::kOutputBegin: {
          Next();
          auto node = MakeNode(NodeKind::kOutput);
          node->expr = Tuple();
          if (Peek().kind != TokenKind::kOutputEnd)
            Fail(fmt::format("expected }}}}, found {}", Shown()));
          Next();
          block.push_back(std::move(node));
          break;
        }
        case TokenKind::kBlockBegin:
          Next();
          if (std::find(ends.begin(), ends.end(), Peek().text) != ends.end()) return block;
          Statement(&block);
          break;
        default:
          if (ends.size() != 0) Fail(fmt::format("a block is not closed by {}", *(ends.end() - 1)));
          return block;
      }
    }
  }

  void Statement(Block* block) {
    const std::string word = WantName();
    if (word == "if") {
      block->push_back(If());
    } else if (word == "for") {
      block->push_back(For());
    } else if (word == "set") {
      block->push_back(Set());
    } else if (word == "macro") {
      block->push_back(Macro());
    } else if (word == "break" || word == "continue") {
      block->push_back(MakeNode(word == "break" ? NodeKind::kBreak : NodeKind::kContinue));
      if (loops_ == 0) Fail(fmt::format("'{}' stands in no loop", word));
      WantBlockEnd();
    } else if (word == "with") {
      block->push_back(With());
    } else if (word == "filter") {
      block->push_back(FilterBlock());
    } else if (word == "call") {
      block->push_back(Call());
    } else if (word == "generation") {
      // Marks assistant text for training; only its body is rendered.
      auto node = MakeNode(NodeKind::kWith);
      WantBlockEnd();
      node->body = BodyUpTo("endgeneration");
      block->push_back(std::move(node));
    } else {
      Fail(fmt::format("the statement '{}' is not supported in chat templates", word));
    }
  }

  // Parses a body and the tag that closes it.
  Block BodyUpTo(std::string_view end) {
    Block body = Body({end});
    Next();
    WantBlockEnd();
    return body;
  }

  std::unique_ptr<Node> If() {
    auto node = MakeNode(NodeKind::kIf);
    auto condition = Tuple();
    while (true) {
      WantBlockEnd();
      Block body = Body({"elif", "else", "endif"});
      node->branches.push_back({std::move(condition), std::move(body)});
      if (TakeWord("endif")) break;
      if (TakeWord("else")) {
        WantBlockEnd();
        node->branches.push_back({nullptr, Body({"endif"})});
        Next();
        break;
      }
      Next();  // elif
      condition = Tuple();
    }
    WantBlockEnd();
    return node;
  }

  std::unique_ptr<Node> For() {
    auto node = MakeNode(NodeKind::kFor);
    node->targets = Targets();
    if (!TakeWord("in")) Fail(fmt::format("expected 'in', found {}", Shown()));
    node->expr = Expression(/*with_condition=*/false);
    if (TakeWord("if")) node->filter = Expression();
    if (IsWord("recursive")) Fail("recursive loops are not supported in chat templates");
    WantBlockEnd();
    ++loops_;
    std::set<std::string> names = std::exchange(names_, {});
    node->body = Body({"else", "endfor"});
    node->takes_loop = names_.contains("loop");
    names_.merge(names);
    --loops_;
    if (TakeWord("else")) {
      WantBlockEnd();
      node->otherwise = Body({"endfor"});
    }
    Next();
    WantBlockEnd();
    return node;
  }

  std::vector<std::string> Targets() {
    std::vector<std::string> names;
    const bool bracket = TakeOp("(");
    do {
      names.push_back(WantName());
    } while (TakeOp(","));
    if (bracket) WantOp(")");
    return names;
  }

  std::unique_ptr<Node> Set() {
    auto node = MakeNode(NodeKind::kSet);
    node->targets = Targets();
    if (node->targets.size() == 1 && TakeOp(".")) node->text = WantName();
    if (TakeOp("=")) {
      node->expr = Tuple();
      WantBlockEnd();
    } else {
      if (node->targets.size() != 1) Fail(fmt::format("expected '=', found {}", Shown()));
      node->captures = true;
      node->expr = Make(ExprKind::kCaptured);
      if (IsOp("|")) node->expr = FiltersAndTests(std::move(node->expr));
      WantBlockEnd();
      node->body = BodyUpTo("endset");
    }
    return node;
  }

  std::unique_ptr<Node> With() {
    auto node = MakeNode(NodeKind::kWith);
    while (Peek().kind != TokenKind::kBlockEnd) {
      if (!node->targets.empty()) WantOp(",");
      node->targets.push_back(WantName());
      WantOp("=");
      node->defaults.push_back(Expression());
    }
    WantBlockEnd();
    node->body = BodyUpTo("endwith");
    return node;
  }

  std::unique_ptr<Node> FilterBlock() {
    auto node = MakeNode(NodeKind::kFilter);
    node->expr = FiltersAndTests(OneFilter(Make(ExprKind::kCaptured)));
    WantBlockEnd();
    node->body = BodyUpTo("endfilter");
    return node;
  }

  std::unique_ptr<Node> Call() {
    auto node = MakeNode(NodeKind::kCall);
    node->text = "caller";
    if (TakeOp("(")) Parameters(node.get());
    node->expr = Unary(/*with_filter=*/false);
    if (node->expr->kind != ExprKind::kCall) Fail("'call' is not followed by a call");
    WantBlockEnd();
    MacroBody(node.get(), "endcall");
    return node;
  }

  void MacroBody(Node* node, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    std::set<std::string> names = std::exchange(names_, {});
    node->body = BodyUpTo(end);
    node->takes_varargs = names_.contains("varargs");
    node->takes_kwargs = names_.contains("kwargs");
    node->takes_caller = names_.contains("caller");
    names_.merge(names);
    loops_ = loops;
  }

  // Parses the names and defaults of a macro after its "(".
  void Parameters(Node* node) {
    while (!TakeOp(")")) {
      node->targets.push_back(WantName());
      node->defaults.push_back(TakeOp("=") ? Expression() : nullptr);
      if (!IsOp(")")) WantOp(",");
    }
  }

  std::unique_ptr<Node> Macro() {
    auto node = MakeNode(NodeKind::kMacro);
    node->text = WantName();
    WantOp("(");
    Parameters(node.get());
    WantBlockEnd();
    MacroBody(node.get(), "endmacro");
    return node;
  }

  // ---- Expressions, loosest binding first ----
  ExprPtr Tuple() {
    ExprPtr first = Expression();
    if (!IsOp(",")) return first;
    auto tuple = Make(ExprKind::kTuple);
    Adopt(tuple.get(), std::move(first));
    while (TakeOp(",")) {
      if (Peek().kind == TokenKind::kBlockEnd || Peek().kind == TokenKind::kOutputEnd) break;
      Adopt(tuple.get(), Expression());
    }
    return tuple;
  }

  ExprPtr Expression(bool with_condition = true) {
    const Deeper deeper(this);
    ExprPtr value = Or();
    while (with_condition && TakeWord("if")) {
      auto conditional = Make(ExprKind::kIf);
      Adopt(conditional.get(), std::move(value));
      Adopt(conditional.get(), Or());
      Adopt(conditional.get(), TakeWord("else") ? Expression() : nullptr);
      value = std::move(conditional);
    }
    return value;
  }

  ExprPtr Binary(std::string op, ExprPtr left, ExprPtr right) const {
    auto expr = Make(ExprKind::kBinary);
    expr->name = std::move(op);
    Adopt(expr.get(), std::move(left));
    Adopt(expr.get(), std::move(right));
    return expr;
  }

  ExprPtr Or() {
    ExprPtr left = And();
    while (TakeWord("or")) left = Binary("or", std::move(left), And());
    return left;
  }
  ExprPtr And() {
    ExprPtr left = Not();
    while (TakeWord("and")) left = Binary("and", std::move(left), Not());
    return left;
  }
  ExprPtr Not() {
    const Deeper deeper(this);
    if (!TakeWord("not")) return Compare();
    auto expr = Make(ExprKind::kUnary);
    expr->name = "not";
    Adopt(expr.get(), Not());
    return expr;
  }

  ExprPtr Compare() {
    ExprPtr first = Sum();
    auto expr = Make(ExprKind::kCompare);
    while (true) {
      std::string op;
      if (Peek().kind == TokenKind::kOperator &&
          (Peek().text == "==" || Peek().text == "!=" || Peek().text == "<" || Peek().text == ">" ||
           Peek().text == "<=" || Peek().text == ">=")) {
        op = Next().text;
      } else if (IsWord("in")) {
        Next();
        op = "in";
      } else if (IsWord("not") && Peek(1).kind == TokenKind::kName && Peek(1).text == "in") {
        Next();
        Next();
        op = "not in";
      } else {
        break;
      }
      if (expr->args.empty()) Adopt(expr.get(), std::move(first));
      expr->ops.push_back(std::move(op));
      Adopt(expr.get(), Sum());
    }
    if (expr->ops.empty()) return first;
    return expr;
  }

  ExprPtr Sum() {
    ExprPtr left = Concat();
    while (IsOp("+") || IsOp("-")) {
      const std::string op = Next().text;
      left = Binary(op, std::move(left), Concat());
    }
    return left;
  }
  ExprPtr Concat() {
    ExprPtr left = Product();
    while (TakeOp("~")) left = Binary("~", std::move(left), Product());
    return left;
  }
  ExprPtr Product() {
    ExprPtr left = Power();
    while (IsOp("*") || IsOp("/") || IsOp("//") || IsOp("%")) {
      const std::string op = Next().text;
      left = Binary(op, std::move(left), Power());
    }
    return left;
  }
  ExprPtr Power() {
    ExprPtr left = Unary(true);
    while (TakeOp("**")) left = Binary("**", std::move(left), Unary(true));
    return left;
  }

  ExprPtr Unary(bool with_filter) {
    const Deeper deeper(this);
    ExprPtr value;
    if (IsOp("-") || IsOp("+")) {
      auto expr = Make(ExprKind::kUnary);
      expr->name = Next().text;
      Adopt(expr.get(), Unary(false));
      value = std::move(expr);
    } else {
      value = Primary();
    }
    value = Postfix(std::move(value));
    return with_filter ? FiltersAndTests(std::move(value)) : std::move(value);
  }

  ExprPtr Primary() {
    const Token& token = Peek();
    switch (token.kind) {
      case TokenKind::kName:
        return NameOrConstant();
      case TokenKind::kNumber: {
        auto expr = Make(ExprKind::kLiteral);
        expr->value = Next().number;
        return expr;
      }
      case TokenKind::kString: {
        auto expr = Make(ExprKind::kLiteral);
        std::string text = Next().text;
        // Adjacent literals are joined.
        while (Peek().kind == TokenKind::kString) text += Next().text;
        expr->value = Value(std::move(text));
        return expr;
      }
      default:
        break;
    }
    if (TakeOp("(")) return Parenthesis();
    if (TakeOp("[")) return Items(ExprKind::kList, "]");
    if (TakeOp("{")) return Items(ExprKind::kDict, "}");
    Fail(fmt::format("expected an expression, found {}", Shown()));
  }

  ExprPtr NameOrConstant() {
    auto expr = Make(ExprKind::kLiteral);
    const std::string name = Next().text;
    if (name == "true" || name == "True") {
      expr->value = Value(true);
    } else if (name == "false" || name == "False") {
      expr->value = Value(false);
    } else if (name == "none" || name == "None") {
      expr->value = Value(None{});
    } else {
      if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved)) {
        Fail(fmt::format("expected an expression, found '{}'", name));
      }
      expr->kind = ExprKind::kName;
      names_.insert(name);
      expr->name = name;
    }
    return expr;
  }

  ExprPtr Parenthesis() {
    if (TakeOp(")")) return Make(ExprKind::kTuple);
    ExprPtr first = Expression();
    if (TakeOp(")")) return first;
    auto tuple = Make(ExprKind::kTuple);
    Adopt(tuple.get(), std::move(first));
    while (TakeOp(",")) {
      if (IsOp(")")) break;
      Adopt(tuple.get(), Expression());
    }
    WantOp(")");
    return tuple;
  }

  ExprPtr Items(ExprKind kind, std::string_view close) {
    auto expr = Make(kind);
    while (!TakeOp(close)) {
      Adopt(expr.get(), Expression());
      if (kind == ExprKind::kDict) {
        WantOp(":");
        Adopt(expr.get(), Expression());
      }
      if (!IsOp(close)) WantOp(",");
    }
    return expr;
  }

  ExprPtr Postfix(ExprPtr value) {
    while (true) {
      if (TakeOp(".")) {
        auto expr = Make(ExprKind::kAttribute);
        Adopt(expr.get(), std::move(value));
        expr->name = WantName();
        expr->value = Value(expr->name);
        value = std::move(expr);
      } else if (TakeOp("[")) {
        value = Subscript(std::move(value));
      } else if (IsOp("(")) {
        auto expr = Make(ExprKind::kCall);
        Adopt(expr.get(), std::move(value));
        Arguments(expr.get());
        value = std::move(expr);
      } else {
        return value;
      }
    }
  }

  ExprPtr Subscript(ExprPtr value) {
    auto expr = Make(ExprKind::kSubscript);
    Adopt(expr.get(), std::move(value));
    ExprPtr index = IsOp(":") ? nullptr : Expression();
    Adopt(expr.get(), std::move(index));
    if (IsOp(":")) {
      expr->kind = ExprKind::kSlice;
      for (int part = 0; part < 2; ++part) {
        const bool given = TakeOp(":") && !IsOp(":") && !IsOp("]");
        Adopt(expr.get(), given ? Expression() : nullptr);
      }
    }
    WantOp("]");
    return expr;
  }

  void Arguments(Expr* call) {
    WantOp("(");
    while (!TakeOp(")")) {
      if (Peek().kind == TokenKind::kName && Peek(1).kind == TokenKind::kOperator &&
          Peek(1).text == "=") {
        std::string name = Next().text;
        Next();
        ExprPtr argument = Expression();
        Grow(call, *argument);
        call->named.emplace_back(std::move(name), std::move(argument));
      } else {
        Adopt(call, Expression());
        if (call->args.size() > kArgumentsMax + 1) {
          Fail(fmt::format("a call has more than {} arguments", kArgumentsMax));
        }
      }
      if (!IsOp(")")) WantOp(",");
    }
  }

  ExprPtr OneFilter(ExprPtr value) {
    auto expr = Make(ExprKind::kFilter);
    Adopt(expr.get(), std::move(value));
    expr->name = WantName();
    if (IsOp("(")) Arguments(expr.get());
    return expr;
  }

  ExprPtr FiltersAndTests(ExprPtr value) {
    while (true) {
      if (TakeOp("|")) {
        value = OneFilter(std::move(value));
      } else if (TakeWord("is")) {
        auto expr = Make(ExprKind::kTest);
        expr->negate = TakeWord("not");
        Adopt(expr.get(), std::move(value));
        expr->name = WantName();
        if (IsOp("(")) {
          Arguments(expr.get());
        } else if (StartsTestArgument()) {
          Adopt(expr.get(), Postfix(Primary()));
        }
        value = std::move(expr);
      } else if (IsOp("(")) {
        auto expr = Make(ExprKind::kCall);
        Adopt(expr.get(), std::move(value));
        Arguments(expr.get());
        value = std::move(expr);
      } else {
        return value;
      }
    }
  }

  // `x is divisibleby 3`: one argument may follow without parentheses.
  bool StartsTestArgument() const {
    const Token& token = Peek();
    if (token.kind == TokenKind::kString || token.kind == TokenKind::kNumber) return true;
    if (token.kind == TokenKind::kOperator) return token.text == "[" || token.text == "{";
    return token.kind == TokenKind::kName &&
           std::find(std::begin(kReserved), std::end(kReserved), token.text) == std::end(kReserved);
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  std::set<std::string> names_;  // The names that were read so far.
  int loops_ = 0;                // Loops around the current position, within one macro.
};

}  // namespace

Block Parse(std::string_view source) {
  if (const size_t at = FirstInvalidUtf8(source); at != source.npos) {
    throw TemplateError(fmt::format(
        "line {}: byte 0x{:02X} is not UTF-8; save the template as UTF-8",
        1 + std::ranges::count(source.substr(0, at), '\n'), static_cast<uint8_t>(source[at])));
  }
  Block block = Parser(source).Run();
  Resolve(block);
  return block;
}

}  // namespace fathom::jinja
