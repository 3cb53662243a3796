//! What each kind of condition matches.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

mod requests;

use requests::{matches, request, with_bytes};

/// `yes!(name, conditions, request lines)` expects a match, `no!` none.
macro_rules! yes {
    ($test:ident, $conditions:expr, $request:expr) => {
        #[test]
        fn $test() {
            assert!(matches(&$conditions, &request(&$request)));
        }
    };
}
macro_rules! no {
    ($test:ident, $conditions:expr, $request:expr) => {
        #[test]
        fn $test() {
            assert!(!matches(&$conditions, &request(&$request)));
        }
    };
}

// Headers.
yes!(a_header_with_the_value, ["Coder=Bob"], ["coder: Bob"]);
no!(a_header_with_another_value, ["Coder=Bob"], ["coder: Alice"]);
no!(a_value_in_another_case, ["Coder=Bob"], ["coder: bob"]);
no!(a_value_that_only_begins_so, ["Coder=Bob"], ["coder: Bobby"]);
no!(a_value_that_only_ends_so, ["Coder=Bob"], ["coder: xBob"]);
no!(an_absent_header, ["Coder=.*"], ["other: Bob"]);
yes!(a_name_in_any_case, ["cODER=Bob"], ["Coder: Bob"]);
yes!(a_regex_that_matches_entirely, ["Coder=B.*"], ["coder: Bob"]);
no!(
    a_regex_that_matches_the_beginning,
    ["Coder=B."],
    ["coder: Bob"]
);
no!(a_regex_that_matches_the_end, ["Coder=.b"], ["coder: Bob"]);
yes!(an_alternation_as_a_whole, ["Coder=Bob|Eve"], ["coder: Eve"]);
no!(
    an_alternation_matches_no_beginning,
    ["Coder=Bob|Eve"],
    ["coder: Bobx"]
);
no!(
    an_alternation_matches_no_end,
    ["Coder=Bob|Eve"],
    ["coder: xEve"]
);
yes!(a_flag_inside_the_pattern, ["Coder=(?i)bOB"], ["coder: Bob"]);
no!(
    a_multi_line_flag_does_not_cut_the_value,
    ["Coder=(?m)Bob$"],
    ["coder: Bobx"]
);
yes!(nested_quantifiers, ["Coder=((a+)+b?)*"], ["coder: aabaab"]);
no!(
    nested_quantifiers_that_do_not_fit,
    ["Coder=((a+)+b?)*"],
    ["coder: aabbaa"]
);
yes!(an_escaped_text, [r"Coder=a\.b"], ["coder: a.b"]);
no!(an_escaped_dot_is_a_dot, [r"Coder=a\.b"], ["coder: axb"]);
yes!(
    further_equals_signs_are_the_value,
    ["Coder=a=b"],
    ["coder: a=b"]
);
yes!(an_empty_value_for_a_regex, ["X-A=.*"], ["x-a: "]);
yes!(an_empty_value_for_an_empty_pattern, ["X-A=^$"], ["x-a: "]);
no!(a_value_for_an_empty_pattern, ["X-A=^$"], ["x-a: b"]);
no!(no_value_at_all_for_an_empty_pattern, ["X-A=^$"], ["x-b: "]);
yes!(
    a_uuid,
    ["Personal-Intercept=126a72c7-be8b-4329-af64-768e207a184b"],
    ["personal-intercept: 126a72c7-be8b-4329-af64-768e207a184b"]
);

// All conditions.
yes!(all_headers_match, ["A=1", "B=2"], ["a: 1", "b: 2"]);
no!(one_header_of_two_is_absent, ["A=1", "B=2"], ["a: 1"]);
no!(one_header_of_two_differs, ["A=1", "B=2"], ["a: 1", "b: 3"]);
yes!(two_conditions_on_one_header, ["A=1.*", "A=.*2"], ["a: 12"]);
no!(
    one_of_two_conditions_on_one_header,
    ["A=1.*", "A=.*2"],
    ["a: 13"]
);
yes!(
    header_baggage_and_path,
    ["A=1", "@k=v", "prefix /api"],
    ["a: 1", "baggage: k=v", ":path: /api/x"]
);
no!(
    header_and_path_without_baggage,
    ["A=1", "@k=v", "prefix /api"],
    ["a: 1", ":path: /api/x"]
);
no!(
    header_and_baggage_on_another_path,
    ["A=1", "@k=v", "prefix /api"],
    ["a: 1", "baggage: k=v", ":path: /ap"]
);

// Lists.
yes!(
    a_member_of_a_list,
    ["Coder=Bob"],
    ["coder: Alice, Bob ,Eve"]
);
yes!(
    a_member_of_a_list_by_regex,
    ["Coder=B.b"],
    ["coder: Alice,\tBob"]
);
no!(
    a_member_of_a_list_in_part,
    ["Coder=Bob"],
    ["coder: Alice, Bobby"]
);
yes!(
    a_header_on_several_lines,
    ["Coder=Bob"],
    ["coder: Alice", "coder: Bob"]
);
no!(
    several_lines_without_the_value,
    ["Coder=Bob"],
    ["coder: Alice", "coder: Eve"]
);
yes!(the_whole_list, ["Coder=a, b"], ["coder: a, b"]);
yes!(the_whole_list_by_regex, ["Coder=a, [b]"], ["coder: a, b"]);
yes!(
    several_lines_as_a_whole,
    ["Coder=a,b"],
    ["coder: a", "coder: b"]
);
no!(a_list_in_another_order, ["Coder=a, b"], ["coder: b, a"]);
no!(an_empty_member_is_none, ["Coder=^$"], ["coder: a,,b"]);
no!(two_lists_are_not_merged, ["Coder=x[ab]"], ["coder: x, a"]);
yes!(
    two_conditions_may_take_two_members,
    ["A=[1]", "A=2"],
    ["a: 1, 2"]
);

// Pseudo-headers.
no!(a_pseudo_header_is_no_list, [":path=/b"], [":path: /a,/b"]);
no!(
    a_pseudo_header_is_no_list_by_regex,
    [":path=/b.*"],
    [":path: /a,/b"]
);
yes!(
    a_pseudo_header_with_a_comma,
    [":path=/a,/b"],
    [":path: /a,/b"]
);
no!(a_host_is_no_list, ["Host=b"], [":authority: a,b"]);
yes!(a_method, [":method=POST"], [":method: POST"]);
no!(another_method, [":method=POST"], [":method: GET"]);
yes!(
    an_authority,
    [":authority=orders.*"],
    [":authority: orders:80"]
);
yes!(the_whole_path, [r":path=/a\?x=\d"], [":path: /a?x=1"]);
no!(
    the_whole_path_without_its_query,
    [":path=/a"],
    [":path: /a?x=1"]
);

// Baggage.
yes!(a_baggage_member, ["@dev=bob"], ["baggage: dev=bob"]);
no!(
    a_baggage_member_with_another_value,
    ["@dev=bob"],
    ["baggage: dev=alice"]
);
no!(
    a_baggage_key_in_another_case,
    ["@dev=bob"],
    ["baggage: Dev=bob"]
);
no!(
    a_baggage_key_that_only_begins_so,
    ["@dev=bob"],
    ["baggage: devs=bob"]
);
no!(a_header_is_no_baggage, ["@dev=bob"], ["dev: bob"]);
yes!(
    a_baggage_member_among_others,
    ["@dev=bob"],
    ["baggage: a=1 , dev = bob ,b=2"]
);
yes!(
    baggage_on_several_lines,
    ["@dev=bob"],
    ["baggage: a=1", "baggage: dev=bob"]
);
yes!(
    baggage_with_properties,
    ["@dev=bob"],
    ["baggage: dev=bob;ttl=5 ; x"]
);
yes!(
    baggage_with_a_blank_before_its_properties,
    ["@dev=b.b"],
    ["baggage: dev=bob ;ttl=5"]
);
no!(
    a_baggage_property_is_no_member,
    ["@ttl=5"],
    ["baggage: dev=bob;ttl=5"]
);
yes!(baggage_in_percent, ["@dev=b o"], ["baggage: dev=b%20o"]);
yes!(
    baggage_in_percent_by_regex,
    ["@dev=.{3}"],
    ["baggage: dev=b%2Co"]
);
yes!(
    baggage_in_percent_beyond_ascii,
    ["@dev=Zoë"],
    ["baggage: dev=Zo%C3%AB"]
);
yes!(
    a_percent_sign_that_encodes_nothing,
    ["@dev=5%"],
    ["baggage: dev=5%"]
);
yes!(
    a_percent_sign_before_no_hexadecimal_digit,
    ["@dev=%zz"],
    ["baggage: dev=%zz"]
);
no!(percent_is_decoded_once, ["@dev= "], ["baggage: dev=%2520"]);
yes!(
    baggage_with_an_equals_sign,
    ["@dev=a=b"],
    ["baggage: dev=a=b"]
);
yes!(an_empty_baggage_value, ["@dev=.*"], ["baggage: dev="]);
no!(
    a_baggage_member_without_a_value,
    ["@dev=.*"],
    ["baggage: dev"]
);
yes!(
    a_baggage_key_given_twice,
    ["@dev=bob"],
    ["baggage: dev=alice,dev=bob"]
);
yes!(
    two_baggage_conditions,
    ["@a=1", "@b=2"],
    ["baggage: b=2,a=1"]
);
no!(
    one_of_two_baggage_conditions,
    ["@a=1", "@b=2"],
    ["baggage: a=1"]
);
no!(
    a_baggage_value_in_part,
    ["@dev=bob"],
    ["baggage: dev=bobby"]
);
no!(a_baggage_regex_in_part, ["@dev=b."], ["baggage: dev=bobby"]);

// Paths.
yes!(an_equal_path, ["equal /a"], [":path: /a"]);
yes!(
    an_equal_path_before_a_query,
    ["equal /a"],
    [":path: /a?b=c"]
);
yes!(
    an_equal_path_before_a_fragment,
    ["equal /a"],
    [":path: /a#b"]
);
no!(a_longer_path, ["equal /a"], [":path: /a/"]);
no!(a_path_in_another_case, ["equal /a"], [":path: /A"]);
no!(a_path_in_percent, ["equal /a"], [":path: /%61"]);
yes!(a_path_in_percent_as_sent, ["equal /%61"], [":path: /%61"]);
yes!(a_prefix_itself, ["prefix /api"], [":path: /api"]);
yes!(a_path_below_a_prefix, ["prefix /api"], [":path: /api/x"]);
yes!(
    a_path_that_goes_on_as_text,
    ["prefix /api"],
    [":path: /apix"]
);
no!(a_prefix_elsewhere, ["prefix /api"], [":path: /v1/api"]);
no!(
    a_shorter_path_than_the_prefix,
    ["prefix /api"],
    [":path: /ap"]
);
yes!(
    a_path_regex,
    ["regex /(staging-)?api/.*"],
    [":path: /api/x"]
);
yes!(
    a_path_regex_with_its_option,
    ["regex /(staging-)?api/.*"],
    [":path: /staging-api/x"]
);
no!(
    a_path_regex_elsewhere,
    ["regex /(staging-)?api/.*"],
    [":path: /v1/api/x"]
);
no!(
    a_path_regex_without_its_slash,
    ["regex /(staging-)?api/.*"],
    [":path: /apix"]
);
yes!(
    a_path_regex_written_without_slash,
    ["regex (staging-)?api/.*"],
    [":path: /api/x"]
);
yes!(
    a_path_regex_with_its_option_written_without_slash,
    ["regex (staging-)?api/.*"],
    [":path: /staging-api/x"]
);
no!(
    a_path_regex_elsewhere_written_without_slash,
    ["regex (staging-)?api/.*"],
    [":path: /v1/api/x"]
);
no!(
    a_path_regex_without_its_slash_written_without_slash,
    ["regex (staging-)?api/.*"],
    [":path: /apix"]
);
yes!(
    a_path_regex_before_a_query,
    ["regex api"],
    [":path: /api?x"]
);
no!(
    a_path_regex_does_not_see_the_query,
    [r"regex api\?x"],
    [":path: /api?x"]
);
yes!(an_alternation_of_paths, ["regex a|b"], [":path: /b"]);
no!(
    an_alternation_of_paths_in_part,
    ["regex a|b"],
    [":path: /ax"]
);

// Intercepts of all requests.
yes!(everybody, [], [":path: /x"]);
yes!(everybody_on_a_path, ["prefix /x"], [":path: /x"]);
no!(everybody_on_another_path, ["prefix /y"], [":path: /x"]);
no!(a_probe_for_everybody, [], ["user-agent: kube-probe/1.34"]);
no!(
    a_probe_for_everybody_on_a_path,
    ["prefix /"],
    ["user-agent: kube-probe/1.34"]
);
yes!(
    a_user_agent_that_is_no_probe,
    [],
    ["user-agent: my-kube-probe/1.34"]
);
yes!(
    a_user_agent_that_only_begins_like_a_probe,
    [],
    ["user-agent: kube-probe"]
);
yes!(
    a_probe_with_a_header,
    ["A=1"],
    ["a: 1", "user-agent: kube-probe/1.34"]
);
yes!(
    a_probe_with_baggage,
    ["@a=1"],
    ["baggage: a=1", "user-agent: kube-probe/1.34"]
);

// Mirrored requests.
no!(
    a_mirrored_request,
    ["A=1"],
    ["a: 1", ":authority: orders-shadow"]
);
no!(
    a_mirrored_request_with_a_port,
    ["A=1"],
    ["a: 1", ":authority: orders-shadow:8080"]
);
no!(
    a_mirrored_request_with_the_mark_behind_the_port,
    ["A=1"],
    ["a: 1", ":authority: orders:8080-shadow"]
);
no!(
    a_mirrored_request_for_everybody,
    [],
    [":authority: orders-shadow"]
);
yes!(
    an_authority_with_shadow_inside,
    ["A=1"],
    ["a: 1", ":authority: orders-shadow.shop:8080"]
);
yes!(
    a_host_that_envoy_shows_as_authority,
    ["Host=orders.*"],
    [":authority: orders:80"]
);
no!(
    another_host_than_envoy_shows,
    ["Host=orders.*"],
    [":authority: carts:80"]
);
yes!(a_shadow_by_itself, ["A=1"], ["a: 1", ":authority: shadow"]);
no!(
    a_mirrored_ipv6_host,
    ["A=1"],
    ["a: 1", ":authority: [::1]-shadow:80"]
);

#[test]
fn a_request_without_a_path_meets_no_path_condition() {
    let mut request = request(&["a: 1"]);
    request.headers.retain(|(name, _)| name != ":path");
    assert!(matches(&["A=1"], &request));
    assert!(!matches(&["A=1", "prefix /"], &request));
    assert!(!matches(&["A=1", "regex .*"], &request));
}

#[test]
fn a_value_that_is_not_utf_8_meets_no_regex() {
    assert!(!matches(&["A=.*"], &with_bytes("a", b"\xff")));
    assert!(!matches(&["A=(?s-u).*"], &with_bytes("a", b"\xff")));
    assert!(!matches(&["@k=.*"], &with_bytes("baggage", b"k=\xff")));
    assert!(!matches(&["@k=.*"], &with_bytes("baggage", b"k=%ff")));
    let mut path = with_bytes("a", b"1");
    path.headers[0].1 = b"/\xff".to_vec();
    assert!(!matches(&["A=1", "regex .*"], &path));
    assert!(matches(&["A=1", "prefix /"], &path));
}

#[test]
fn a_member_beside_one_that_is_not_utf_8_is_tried() {
    assert!(matches(&["A=B.b"], &with_bytes("a", b"\xff, Bob")));
    assert!(matches(&["A=Bob"], &with_bytes("a", b"\xff, Bob")));
    assert!(matches(
        &["@k=v+"],
        &with_bytes("baggage", b"\xff=\xff,k=v")
    ));
}

#[test]
fn a_value_of_4_kib_is_tried_and_a_longer_one_only_compared() {
    let (fits, long) = ("a".repeat(4_096), "a".repeat(4_097));
    assert!(matches(&["A=a+"], &with_bytes("a", fits.as_bytes())));
    assert!(!matches(&["A=a+"], &with_bytes("a", long.as_bytes())));
    assert!(matches(
        &[&format!("A={long}")],
        &with_bytes("a", long.as_bytes())
    ));
    let member = |value: &str| with_bytes("baggage", format!("k={value}").as_bytes());
    assert!(matches(&["@k=a+"], &member(&fits)));
    assert!(!matches(&["@k=a+"], &member(&long)));
    assert!(matches(&[&format!("@k={long}")], &member(&long)));
    let path = |text: &str| request(&[&format!(":path: /{text}")]);
    assert!(matches(&["regex a+"], &path(&fits[1..])));
    assert!(!matches(&["regex a+"], &path(&fits)));
    assert!(matches(&[&format!("equal /{long}")], &path(&long)));
}

#[test]
fn a_short_member_of_a_list_longer_than_4_kib_is_compared() {
    let list = format!("{}, Bob", "a".repeat(4_096));
    assert!(matches(&["A=Bob"], &with_bytes("a", list.as_bytes())));
}

#[test]
fn short_members_of_a_list_longer_than_4_kib_are_tried_up_to_4_kib_together() {
    let list = |start: &str, end: &str| {
        let list = format!("{start}{}{end}", "a".repeat(4_096));
        with_bytes("a", list.as_bytes())
    };
    assert!(matches(&["A=B.b"], &list("Bob, a", "")));
    assert!(matches(&["A=B.b"], &list("a", ", Bob")));
    assert!(!matches(&["A=B.b"], &list("", ", Bob")));
    assert!(!matches(&["A=a*B.b"], &list("", "Bob")));
}

#[test]
fn the_query_does_not_count_towards_the_length_of_a_path() {
    let path = format!(":path: /a?{}", "x".repeat(5_000));
    assert!(matches(&["regex a"], &request(&[&path])));
}
