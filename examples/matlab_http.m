% Focus with your own camera and stage from MATLAB, over HTTP. Nothing has to be installed but focusd, which runs with
%   focusd run --config configs/client.toml
% focus('calibrate') once per objective, focused by eye on a flat sample with texture; then focus('refocus') anywhere.
% Write the three functions at the end for your microscope, such as ScanImage's hSI.hMotors and hSI.hDisplay.
% This file was not run in MATLAB. tests/ways/test_client_rig.py sends focusd the same messages, and gets it to focus.

function result = focus(kind)
    answer = call('focus.ask', struct('kind', kind, 'z_um', position_um(), 'limits_um', [-150 150]));
    while ~isempty(answer.expose_um)
        move_to(answer.expose_um(1));
        image = snap();                                          % uint8 or uint16, rows by columns
        pixels = typecast(reshape(image.', 1, []), 'uint8');     % row by row, little-endian
        frame = struct('dtype', class(image), 'shape', size(image), 'z_um', position_um(), ...
                       'base64', matlab.net.base64encode(pixels));
        answer = call('focus.tell', struct('run', answer.run, 'frames', {{frame}}));
    end
    result = answer.result;
    if strcmp(kind, 'refocus')
        move_to(result.focus_um);
        fprintf('in focus at %.2f +- %.2f um after %d images\n', result.focus_um, result.sigma_um, result.exposures);
    end
end

function result = call(method, params)
    request = struct('jsonrpc', '2.0', 'id', 1, 'method', method, 'params', params);
    options = weboptions('MediaType', 'application/json', 'Timeout', 60);
    reply = webwrite('http://127.0.0.1:5572/rpc', request, options);
    if isfield(reply, 'error')
        error('focusd:failed', '%s', reply.error.message);
    end
    result = reply.result;
end

function z_um = position_um()
    error('Return where your stage stands, in micrometres.');
end

function move_to(z_um)
    error('Move your stage to z_um, and wait until it stands there.');
end

function image = snap()
    error('Return an image of your camera, uint8 or uint16.');
end
