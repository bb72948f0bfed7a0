//! The rules of HTTP/2 that a benign server never puts to the test.

use tonic::Code;

use super::*;

const HEADERS_OK: &[u8] = &[0x88]; // :status 200
/// `grpc-status` with this value, as a literal.
fn status(code: &str) -> Vec<u8> {
    let value = [&[u8::try_from(code.len()).unwrap()], code.as_bytes()].concat();
    [&[0, 11], b"grpc-status".as_slice(), &value].concat()
}

fn framed(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(kind, flags, id, payload.len(), &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn setting(setting: u16, value: u32) -> Vec<u8> {
    framed(SETTINGS, 0, 0, &[&setting.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn more(id: u32, bytes: u32) -> Vec<u8> {
    framed(WINDOW_UPDATE, 0, id, &bytes.to_be_bytes())
}

fn message(bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    prefixed(bytes, &mut message);
    message
}

/// One to which nothing was said yet, and which has nothing more to say.
fn connection() -> Http2 {
    let mut http = Http2::new(Origin { authority: "h".to_owned(), is_https: false, authorization: None });
    http.out.clear();
    http
}

/// What the calls hear of this: `1: hello`, or `1: ended OK`.
fn heard(http: &mut Http2, input: &[u8]) -> Vec<String> {
    let mut heard = Vec::new();
    let taken = http.receive(input, |tag, event| {
        heard.push(match event {
            Event::Message(message) => format!("{tag}: {}", String::from_utf8_lossy(message)),
            Event::Ended(status) => format!("{tag}: ended {:?}", status.map_or(Code::Ok, |status| status.code())),
        });
    });
    assert_eq!(taken, Ok(input.len()));
    heard
}

/// The kinds of the frames that are to be written, with the lengths of those of data.
fn written(http: &mut Http2) -> Vec<(u8, usize)> {
    let mut out = std::mem::take(&mut http.out);
    let mut frames = Vec::new();
    while !out.is_empty() {
        let length = usize::from(out[1]) << 8 | usize::from(out[2]);
        frames.push((out[3], if out[3] == DATA { length } else { 0 }));
        out.drain(..HEAD_BYTES + length);
    }
    frames
}

#[test]
fn an_answer_is_its_messages_and_its_status_however_it_is_cut() {
    let hello = [message(b"hello"), message(b"world")].concat();
    let padded = [&[3], &hello[..7], &[0; 3]].concat();
    let trailers = status("0");
    let input = [
        framed(HEADERS, END_HEADERS, 1, HEADERS_OK),
        framed(DATA, PADDED, 1, &padded),
        framed(DATA, 0, 1, &hello[7..]),
        framed(HEADERS, END_STREAM, 1, &trailers[..4]),
        framed(CONTINUATION, END_HEADERS, 1, &trailers[4..]),
    ]
    .concat();
    let expected = ["7: hello", "7: world", "7: ended Ok"];

    let mut http = connection();
    http.open("/p", 7, b"", Last::Yes).unwrap();
    assert_eq!(heard(&mut http, &input), expected);

    // The same a byte at a time: what is no whole frame is left to come again.
    let (mut http, mut heard, mut waiting) = (connection(), Vec::new(), Vec::new());
    http.open("/p", 7, b"", Last::Yes).unwrap();
    for byte in input {
        waiting.push(byte);
        let taken = http.receive(&waiting, |_, event| heard.push(matches!(event, Event::Ended(None))));
        waiting.drain(..taken.unwrap());
    }
    assert_eq!((heard, waiting), (vec![false, false, true], vec![]));
}

#[test]
fn a_call_that_is_refused_reset_or_cut_off_tells_why() {
    let trailers = |block: &[u8]| framed(HEADERS, END_HEADERS | END_STREAM, 1, block);
    let refused = [
        (trailers(&status("14")), Code::Unavailable),
        (trailers(HEADERS_OK), Code::Unknown),
        (framed(HEADERS, END_HEADERS, 1, &[0x8d]), Code::Unknown), // :status 404, of one who speaks no gRPC
        (framed(RST_STREAM, 0, 1, &[0, 0, 0, 7]), Code::Unavailable),
        (framed(DATA, END_STREAM, 1, &[]), Code::Unknown),
        ([framed(DATA, 0, 1, &[0, 0]), trailers(&status("0"))].concat(), Code::Unknown),
    ];
    for (input, code) in refused {
        let mut http = connection();
        http.open("/p", 7, b"", Last::Yes).unwrap();
        assert_eq!(heard(&mut http, &input), [format!("7: ended {code:?}")]);
        assert_eq!(heard(&mut http, &framed(DATA, END_STREAM, 1, b"late")), [""; 0]);
    }
}

#[test]
fn no_more_is_sent_than_the_server_allows_on_the_stream_on_the_connection_and_in_a_frame() {
    let mut http = connection();
    assert_eq!(heard(&mut http, &setting(SETTINGS_INITIAL_WINDOW_SIZE, 20_000)), [""; 0]);
    assert!(http.is_settled());
    written(&mut http);
    http.open("/p", 0, &[0; 24_995], Last::Yes).unwrap(); // 25,000 with its prefix
    assert_eq!(written(&mut http), [(HEADERS, 0), (DATA, 16_384), (DATA, 3_616)]);
    heard(&mut http, &more(1, 1_000));
    assert_eq!(written(&mut http), [(DATA, 1_000)]);
    heard(&mut http, &setting(SETTINGS_INITIAL_WINDOW_SIZE, 25_000));
    assert_eq!(written(&mut http), [(SETTINGS, 0), (DATA, 4_000)]);

    // 25,000 of the connection's 65,535 are sent. A second one takes 25,000, and the third what is left.
    http.open("/p", 1, &[0; 24_995], Last::Yes).unwrap();
    http.open("/p", 2, &[0; 24_995], Last::Yes).unwrap();
    let sent: usize = written(&mut http).iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(sent, 65_535 - 25_000);
    heard(&mut http, &more(5, 1_000_000)); // the third stream may; the connection may not
    assert_eq!(written(&mut http), []);
    heard(&mut http, &more(0, 1_000_000));
    assert_eq!(written(&mut http), [(DATA, 25_000 - 15_535)]);
}

#[test]
fn messages_of_a_stream_stay_in_their_order_when_some_must_wait() {
    let mut http = connection();
    heard(&mut http, &setting(SETTINGS_INITIAL_WINDOW_SIZE, 10));
    let id = http.open("/p", 0, b"12345", Last::No).unwrap();
    http.send(id, b"678", Last::No);
    http.send(id, b"9", Last::Yes);
    written(&mut http);
    heard(&mut http, &more(id, 100));
    let expected = [message(b"678"), message(b"9")].concat();
    assert_eq!(http.out, framed(DATA, END_STREAM, id, &expected));
}

#[test]
fn the_server_may_send_on_however_much_it_has_sent() {
    let mut http = connection();
    http.open("/p", 0, b"", Last::No).unwrap();
    written(&mut http);
    let long = framed(DATA, 0, 1, &message(&[0; FRAME_BYTES_MAX - PREFIX_BYTES]));
    for _ in 0..WINDOW_LOW / 16_384 {
        assert_eq!(written(&mut http), []);
        heard(&mut http, &long);
    }
    assert_eq!(http.out, [more(0, WINDOW_LOW), more(1, WINDOW_LOW)].concat());
}

#[test]
fn a_ping_is_answered_and_after_a_good_bye_nothing_is_opened() {
    let mut http = connection();
    http.open("/p", 7, b"", Last::Yes).unwrap();
    http.out.clear();
    heard(&mut http, &framed(PING, 0, 0, b"12345678"));
    assert_eq!(http.out, framed(PING, ACK, 0, b"12345678"));
    heard(&mut http, &[framed(PING, ACK, 0, &[0; 8]), framed(99, 0, 0, b"?"), framed(GOAWAY, 0, 0, &[0; 8])].concat());
    assert_eq!(http.open("/p", 8, b"", Last::Yes).map_err(Broken::reason), Err("GOAWAY".to_owned()));
    // What was opened before is still answered.
    assert_eq!(heard(&mut http, &framed(HEADERS, END_HEADERS | END_STREAM, 1, &status("0"))), ["7: ended Ok"]);
}

#[test]
fn what_is_no_http2_is_found_out() {
    let wrong = [
        framed(DATA, PADDED, 1, &[9, 0]),
        framed(HEADERS, END_HEADERS, 1, &[0xff, 0xff]),
        framed(HEADERS, END_HEADERS, 1, &[0x80]),
        framed(CONTINUATION, END_HEADERS, 1, HEADERS_OK),
        [framed(HEADERS, 0, 1, HEADERS_OK), framed(DATA, 0, 1, b"")].concat(),
        framed(DATA, 0, 1, &[1, 0, 0, 0, 0]),
        framed(PUSH_PROMISE, 0, 1, &[0; 4]),
        framed(WINDOW_UPDATE, 0, 0, &[0; 3]),
        b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
    ];
    for input in wrong {
        let mut http = connection();
        http.open("/p", 0, b"", Last::Yes).unwrap();
        assert!(http.receive(&input, |_, _| {}).is_err(), "{input:?}");
    }
}

#[test]
fn calls_have_odd_numbers_and_each_hears_its_own_whatever_the_order() {
    let mut http = connection();
    let ids = [10, 11, 12].map(|tag| http.open("/p", tag, b"", Last::Yes).unwrap());
    assert_eq!(ids, [1, 3, 5]);
    let end = |id| framed(HEADERS, END_HEADERS | END_STREAM, id, &status("0"));
    assert_eq!(heard(&mut http, &end(3)), ["11: ended Ok"]);
    assert_eq!(heard(&mut http, &end(1)), ["10: ended Ok"]);
    assert_eq!(http.open("/p", 13, b"", Last::Yes), Ok(7));
    assert_eq!(heard(&mut http, &[end(7), end(5), end(5), end(9), end(2)].concat()), ["13: ended Ok", "12: ended Ok"]);
}
